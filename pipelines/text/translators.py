"""Translators in a recipe: their training data, training and translations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from pydantic import Field

from gristmill.actors.text.translate import BeamSearchSettings, TranslationSettings, stages
from gristmill.actors.text.translator_files import FAST, check_languages, checkpoint_digest, convert, read_units, reader
from gristmill.actors.text.translator_trainer import ScratchSettings, TranslatorTraining, TuneSettings, train
from gristmill.models.text.translator import available, load_translator, save_translator
from gristmill.pipelines.run import Run
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.index import Cut
from gristmill.shards.job import TrainJob
from gristmill.shards.plan import expect, later
from gristmill.shards.stage import Resources, Stage
from gristmill.shards.step import Step


class TranslatorSettings(TranslatorTraining):
    """A translator and its training; with ``train`` off, the user's own, unchanged."""

    checkpoint: str | None = None
    """The folder of the user's Marian checkpoint to start from."""
    train: bool = True
    """Whether to train it on the pairs."""
    tune: TuneSettings = TuneSettings()
    """Its fine-tuning."""
    ranks: int = Field(1, ge=1)
    """The number of processes that train it together."""


class TranslateSettings(BeamSearchSettings):
    """Settings of decoding, and the size of shards."""

    shard: Cut = Cut()
    """Maximum size of a shard."""


def translator_job(
    name: str,
    pairs: Sequence[SealedSet],
    settings: TranslatorSettings,
    seed: int = 0,
    *,
    init: Artifact | None = None,
    weights: Sequence[float] | None = None,
    dev: SealedSet | None = None,
    catalogue: Mapping[str, str] | None = None,
) -> TrainJob:
    """Return the training job of a translator on sets of pairs, each with its weight in an epoch.

    With ``init`` it is fine-tuned (``settings.tune``) and keeps its units and text normalisation. Values of the
    catalogue (source to target) become placeholders in pairs that contain both.

    A set without pairs is refused once it is made (:class:`UserError`) if it is the only one.

    Raises:
        UserError: no set is given.
    """
    if not pairs:
        raise UserError(f"{name}: there are no pairs to train a translator on; expected at least one set")
    if len(pairs) == 1:
        expect(pairs[0], partial(_refuse_no_pairs, name=name))
    own = settings.part(TranslatorTraining)
    if init is not None:
        own = own.but(**dict(settings.tune))
    start = init or settings.checkpoint
    if start is not None:
        # Settings of training from scratch are not used, so that no fingerprint depends on them.
        own = TranslatorTraining(**{key: value for key, value in own if key not in ScratchSettings.model_fields})
    return TrainJob(
        name,
        loop=train,
        settings=own,
        inputs={
            "data": later(_weighted, pairs, weights),
            "seed": seed,
            "init": start,
            "dev": dev,
            "catalogue": dict(catalogue or {}),
        },
        version=2,
        ranks=settings.ranks,
        resources=Resources(cpus=settings.threads, gpus=settings.gpus),
    )


def _weighted(pairs: Sequence[SealedSet], weights: Sequence[float] | None) -> list[tuple[SealedSet, float]]:
    return list(zip(pairs, weights or [1.0] * len(pairs), strict=True))


def _refuse_no_pairs(pairs: SealedSet, name: str) -> None:
    if not pairs.records:
        raise UserError(f"{name}: there are no pairs to train a translator on; expected at least one record")


def check_translator(settings: TranslatorSettings) -> None:
    """Check that the checkpoint exists, is a Marian checkpoint, and has the right languages."""
    available()
    folder = settings.checkpoint
    if folder is not None:
        check_languages(read_units(folder, settings.prefix), folder, settings.source_lang, settings.target_lang)
    elif not settings.train:
        raise UserError("translator.train: off, but no checkpoint is given; expected the folder of a Marian checkpoint")


def own_translator(run: Run, name: str, settings: TranslatorSettings) -> Artifact:
    """Return the user's checkpoint as an artifact, converted once for all uses.

    Raises:
        UserError: it does not exist, is not a Marian checkpoint, or has other languages.
    """
    check_translator(settings.but(train=False))
    folder = str(settings.checkpoint)

    def make(url: str) -> dict[str, bytes]:
        model, units = load_translator(reader(folder), folder, settings.prefix)
        fast = {f"{FAST}{file}": data for file, data in convert(model, units).items()}
        return save_translator(model, units) | fast

    languages = [settings.source_lang, settings.target_lang, settings.prefix]
    identity = {"files": checkpoint_digest(folder), "languages": languages, "version": 1}
    return run.artifact(name, make, identity, on_driver=True)


def translate(
    run: Run,
    name: str,
    texts: SealedSet,
    translator: Artifact,
    settings: TranslateSettings,
    *,
    source_lang: str,
    target_lang: str,
    column: str = "source",
    catalogue: Mapping[str, str] | None = None,
    then: Sequence[Stage] = (),
) -> SealedSet:
    """Add ``translations`` (best first) to the records of a set; records without any are rejected with the reason.

    ``then`` are further stages of the same step.

    Raises:
        UserError: the set has no such column, or the translator has other languages.
    """
    if column not in texts.schema.names:
        raise UserError(f"{name}: the texts have no column {column!r}; they have {', '.join(texts.schema.names)}")
    wanted = TranslationSettings(
        column=column, decoding=settings.part(BeamSearchSettings), catalogue=dict(catalogue or {})
    )

    def chain(translator: Artifact, then: Sequence[Stage]) -> tuple[Stage, ...]:
        return (*stages(translator.ref, wanted, source_lang=source_lang, target_lang=target_lang), *then)

    return run.step(Step(name, later(chain, translator, then), texts, cut=settings.shard))
