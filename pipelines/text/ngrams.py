"""N-gram language models in recipes: models and mixtures."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, model_validator

from gristmill.actors.text.ngram_texts import check_columns
from gristmill.models.text.ngram import check_settings
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainJob
from gristmill.shards.settings import Settings

Texts = Sequence[tuple[SealedSet, str]]  # sealed sets and the column of each that holds the text


class NgramSettings(Settings):
    """How n-gram models are estimated.

    n-grams seen as often as ``prune`` says for their order, or less, are left out; the last count holds for the
    orders above. ``memory`` is what the n-grams of one worker of the distributed estimate may take, in bytes, beside
    what the program and the vocabulary take.
    """

    order: int = Field(4, ge=2, le=6)
    prune: tuple[int, ...] = (0,)
    memory: int = Field(1 << 30, ge=1 << 24)

    @model_validator(mode="after")
    def _fits(self) -> NgramSettings:
        try:
            check_settings(self.order, self.prune)
        except UserError as error:
            raise ValueError(str(error)) from None
        return self


def ngram_job(
    name: str, texts: Texts, vocabulary: Artifact, settings: NgramSettings | None = None, only: str | None = None
) -> TrainJob:
    """Return the training of a model, ``lm.arpa``, on text that one process holds the counts of.

    ``only`` names a column of truth values that chooses rows, of the sets that have it.

    Raises:
        UserError: a setting is out of its range, or a column is missing.
    """
    settings = settings or NgramSettings()
    prune = list(check_settings(settings.order, settings.prune))
    config = {**text_config(texts, only), "vocabulary": vocabulary, "order": settings.order, "prune": prune}
    return TrainJob(name, config, loop="gristmill.actors.text.ngram_trainer:train", stepwise=False)


def mix_job(
    name: str,
    models: Sequence[Artifact],
    dev: tuple[SealedSet, str] | None,
    weights: Sequence[float] | None = None,
    only: str | None = None,
) -> TrainJob:
    """Return the mixing of models on one vocabulary into one: ``lm.arpa`` and ``weights.json``.

    The weights make the development text most probable, unless they are given.
    """
    if (dev is None) == (weights is None):
        raise UserError(f"mixture {name}: give either a development text or weights")
    given = {"weights": list(weights)} if weights is not None else {}
    text = {"dev": text_config([dev], only)["texts"], "only": only} if dev is not None else {}
    config = {"models": list(models), **text, **given}
    return TrainJob(name, config, loop="gristmill.actors.text.ngram_mixer:mix", stepwise=False)


def text_config(texts: Texts, only: str | None) -> dict[str, object]:
    """Return the config of a training that names texts.

    Raises:
        UserError: there is none, or a column is missing.
    """
    if not texts:
        raise UserError("n-gram model: no text is given; expected at least one sealed set and column")
    choose = [check_columns(data, column, only) for data, column in texts]
    if only is not None and not any(choose):
        raise UserError(f"n-gram model: none of the sets has the column {only!r}, which is to choose rows")
    return {"texts": [[data, column] for data, column in texts], "only": only}
