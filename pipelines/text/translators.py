"""Translators in a recipe: how they are trained, on what, and the texts that they translate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from gristmill.pipelines.run import Run
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.index import Cut
from gristmill.shards.job import TrainJob
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Resources, Stage
from gristmill.shards.step import Step

OnCpus = Literal["float32", "int8", "int8_float32", "int16"]
ComputeType = Literal[OnCpus, "float16", "bfloat16", "int8_float16", "int8_bfloat16"]


class TranslatorModelSettings(Settings):
    """Sizes of :class:`gristmill.models.text.translator.TranslatorSizes`."""

    dim: int = Field(192, ge=8)
    encoder_layers: int = Field(3, ge=1)
    decoder_layers: int = Field(1, ge=1)
    ff: int = Field(768, ge=8)
    heads: int = Field(4, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    positions: int = Field(256, ge=8)

    @model_validator(mode="after")
    def _fits(self) -> TranslatorModelSettings:
        if self.dim % self.heads:
            raise ValueError(f"dim is {self.dim} and heads is {self.heads}; expected a dim that heads divides")
        return self


class TuneSettings(Settings):
    """Training on from a translator that is there: a few passes at a lower rate."""

    epochs: float = Field(2, gt=0)
    lr: float = Field(5e-4, gt=0)
    warmup: float = Field(0.1, ge=0, le=1)


class TranslatorSettings(Settings):
    """A translator and its training, see :class:`gristmill.actors.text.translator_trainer.TranslatorTraining`.

    Sizes, ``units`` and ``lower`` are of one that is trained from scratch; ``checkpoint`` is the folder of a Marian
    checkpoint of the user's to begin with, ``prefix`` its token for the target language, if it has several. With
    ``train`` off it is not trained on the pairs: it translates as it is.
    """

    source_lang: str = Field("en", min_length=1)
    target_lang: str = Field("hi", min_length=1)
    checkpoint: str | None = None
    prefix: str = ""
    train: bool = True
    model: TranslatorModelSettings = TranslatorModelSettings()
    units: int = Field(4000, ge=50)  # of each language
    lower: bool = True
    placeholders: bool = True
    bilingual_start: bool = True
    epochs: float | None = Field(10, gt=0)
    steps: int | None = Field(None, gt=0)  # instead of epochs: equal work whatever the number of pairs
    lr: float = Field(3e-3, gt=0)
    warmup: float = Field(0.1, ge=0, le=1)
    batch_units: int = Field(1000, ge=1)  # padded, of the longer side
    most_units: int = Field(100, ge=2)  # pairs with more are left out
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    average: int = Field(1, ge=1)  # of the last epochs' weights
    tune: TuneSettings = TuneSettings()
    ranks: int = Field(1, ge=1)
    gpus: float = Field(0.0, ge=0)  # for each rank

    @model_validator(mode="after")
    def _lasts(self) -> TranslatorSettings:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("epochs or steps: expected one of them, and null for the other")
        return self


class TranslateSettings(Settings):
    """How texts are translated, see :func:`gristmill.actors.text.translate.stages`."""

    n: int = Field(1, ge=1)
    beam: int = Field(4, ge=1)
    protect: Literal["none", "catalogue", "all"] = "all"
    length_penalty: float = Field(1.0, ge=0)
    compute_type: ComputeType = "float32"  # CTranslate2's: int8 is faster and a little worse
    gpus: float = Field(0.0, ge=0)
    rows: int = Field(64, ge=1)  # of a batch
    max_units: float = Field(2048, gt=0)  # of a batch, padding counted
    shard: Cut = Cut()

    @model_validator(mode="after")
    def _computes(self) -> TranslateSettings:
        expected = get_args(OnCpus)
        if not self.gpus and self.compute_type not in expected:
            raise ValueError(f"compute_type is {self.compute_type}; expected {', '.join(expected)} without gpus")
        return self


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
    """Return the training of a translator on sets of pairs, each counted by its weight in an epoch.

    With ``init`` it is fine-tuned (``settings.tune``): its weights, units and form of text are taken over. Values of
    the catalogue (source to target) become placeholders in pairs that hold both.

    Raises:
        UserError: there is no set of pairs, or as good as none.
    """
    if not any(sealed.records for sealed in pairs):
        raise UserError(f"{name}: there are no pairs to train a translator on; expected at least one record")
    started: dict[str, Any] = {"init": init or settings.checkpoint, "prefix": settings.prefix}
    if init is not None:
        tune = settings.tune
        schedule: dict[str, Any] = {"epochs": tune.epochs, "lr": tune.lr, "warmup": tune.warmup}
    else:
        schedule = {"epochs": settings.epochs, "steps": settings.steps, "lr": settings.lr, "warmup": settings.warmup}
    if init is None and settings.checkpoint is None:
        started = {
            "model": settings.model.model_dump(),
            "units": settings.units,
            "lower": settings.lower,
            "placeholders": settings.placeholders,
            "bilingual_start": settings.bilingual_start,
        }
    config: dict[str, Any] = {
        "data": list(pairs),
        "weights": None if weights is None else list(weights),
        "source_lang": settings.source_lang,
        "target_lang": settings.target_lang,
        "catalogue": dict(catalogue or {}),
        **started,
        **schedule,
        "batch_units": settings.batch_units,
        "most_units": settings.most_units,
        "label_smoothing": settings.label_smoothing,
        "weight_decay": settings.weight_decay,
        "average": settings.average,
        "seed": seed,
        "device": "auto" if settings.gpus else "cpu",
    }
    if dev is not None:
        config["dev"] = dev
    return TrainJob(
        name,
        config,
        "gristmill.actors.text.translator_trainer:train",
        ranks=settings.ranks,
        resources=Resources(gpus=settings.gpus),
    )


def check_translator(settings: TranslatorSettings) -> None:
    """Refuse a checkpoint that is missing, is no Marian checkpoint, or is of other languages."""
    from gristmill.actors.text.translator_files import check_languages, read_units
    from gristmill.models.text.translator import available

    available()
    folder = settings.checkpoint
    if folder is not None:
        check_languages(read_units(folder, settings.prefix), folder, settings.source_lang, settings.target_lang)
    elif not settings.train:
        raise UserError("translator.train: off, and no checkpoint is given; expected the folder of a Marian checkpoint")


def own_translator(run: Run, name: str, settings: TranslatorSettings) -> Artifact:
    """Return the user's checkpoint as an artifact, converted once for all that translate by it.

    Raises:
        UserError: there is none, it is no Marian checkpoint, or not of these languages.
    """
    from gristmill.actors.text.translator_files import FAST, checkpoint_digest, convert, reader
    from gristmill.models.text.translator import load_translator, save_translator

    check_translator(settings.model_copy(update={"train": False}))
    folder = str(settings.checkpoint)

    def make() -> dict[str, bytes]:
        model, units = load_translator(reader(folder), folder, settings.prefix)
        fast = {f"{FAST}{file}": data for file, data in convert(model, units).items()}
        return save_translator(model, units) | fast

    languages = [settings.source_lang, settings.target_lang, settings.prefix]
    return run.artifact(name, make, {"files": checkpoint_digest(folder), "languages": languages, "version": 1})


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
    """Add ``translations`` (best first) to the records of a set; what has none is turned down with the reason.

    ``then`` are stages that go on with them in the same step.

    Raises:
        UserError: the set has no such column, or the translator is of other languages.
    """
    from gristmill.actors.text.translate import stages

    if column not in texts.schema.names:
        raise UserError(f"{name}: the texts have no column {column!r}; they have {', '.join(texts.schema.names)}")
    chain = stages(
        translator.ref,
        source_lang=source_lang,
        target_lang=target_lang,
        column=column,
        n=settings.n,
        beam=settings.beam,
        protect=settings.protect,
        catalogue=catalogue,
        length_penalty=settings.length_penalty,
        compute_type=settings.compute_type,
        device="cuda" if settings.gpus else "cpu",
        gpus=settings.gpus,
        rows=settings.rows,
        max_units=settings.max_units,
    )
    return run.step(Step(name, (*chain, *then), texts, cut=settings.shard))
