"""N-gram language models and their mixtures in recipes."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from gristmill.actors.text import ngram_mixer, ngram_trainer
from gristmill.actors.text.ngram_mixer import MixtureSettings
from gristmill.actors.text.ngram_texts import check_columns
from gristmill.actors.text.ngram_trainer import NgramTraining
from gristmill.models.ngrams.estimate import NgramSettings
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainJob
from gristmill.shards.settings import HOW

Texts = Sequence[tuple[SealedSet, str]]  # sealed sets and their text columns


class LanguageModelSettings(NgramSettings):
    """The n-gram models of a recipe, and their estimation."""

    memory: int = Field(1 << 30, ge=1 << 24, json_schema_extra=HOW)
    """Memory for the n-grams of one worker of the distributed estimation, in bytes, beyond that of the program and the
    vocabulary."""


def ngram_job(
    name: str, texts: Texts, vocabulary: Artifact, settings: NgramSettings | None = None, only: str | None = None
) -> TrainJob:
    """Return the training job of a model, ``lm.arpa``, on text whose counts fit into one process.

    ``only`` names a boolean column that selects the rows of the sets that have it.

    Raises:
        UserError: a column is missing.
    """
    check_texts(texts, only)
    settings = settings or NgramSettings()
    return TrainJob(
        name,
        loop=ngram_trainer.train,
        settings=NgramTraining(order=settings.order, prune=settings.prune, only=only),
        inputs={"texts": texts, "vocabulary": vocabulary},
        stepwise=False,
    )


def mix_job(
    name: str,
    models: Sequence[Artifact],
    dev: tuple[SealedSet, str] | None,
    weights: Sequence[float] | None = None,
    only: str | None = None,
) -> TrainJob:
    """Return the job that mixes models over one vocabulary into one: ``lm.arpa`` and ``weights.json``.

    The weights maximise the likelihood of the development text, unless they are given.
    """
    if (dev is None) == (weights is None):
        raise UserError(f"mixture {name}: give either a development text or weights")
    if dev is not None:
        check_texts([dev], only)
    return TrainJob(
        name,
        loop=ngram_mixer.mix,
        settings=MixtureSettings(weights=None if weights is None else tuple(weights), only=only),
        inputs={"models": models} if dev is None else {"models": models, "dev": dev},
        stepwise=False,
    )


def check_texts(texts: Texts, only: str | None = None) -> None:
    """Check that a model can be estimated from texts.

    Raises:
        UserError: no text is given, or a column is missing.
    """
    if not texts:
        raise UserError("n-gram model: no text is given; expected at least one sealed set and column")
    choose = [check_columns(data, column, only) for data, column in texts]
    if only is not None and not any(choose):
        raise UserError(f"n-gram model: none of the sets has the column {only!r}, which selects rows")
