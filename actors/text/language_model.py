"""The actors that score text with an n-gram model, through its compact store or KenLM (Heafield, WMT 2011)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.actors.audio import set_column
from gristmill.actors.ngram_files import file_of, local_copy
from gristmill.actors.text.lm_engine import LmEngine, engine_of, engine_of_model
from gristmill.models.ngrams.arpa import UNK, Arpa
from gristmill.models.ngrams.counts import SPECIALS, split_words
from gristmill.shards.errors import UserError
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits

_NATURAL = math.log(10.0)


@dataclass(frozen=True)
class Score:
    """A model's score of a sentence.

    The natural logarithms of its probability and of that of its unknown words alone; the numbers of its words (``</s>``
    included), of unknown words, and of unseen words, which also count words of a closed vocabulary that the model's
    text did not contain.
    """

    logprob: float
    oov_logprob: float
    words: int
    oov: int
    unseen: int


class LanguageModel:
    """An n-gram model at a URL: an artifact, a folder that holds ``lm.arpa``, or a file (store, ARPA, KenLM's binary).

    Raises:
        UserError: the model does not exist, cannot be read, or is KenLM's binary and KenLM is not installed.
    """

    def __init__(self, url: str) -> None:
        with local_copy(file_of(url)) as path:
            self._begin(engine_of(path, url))

    def _begin(self, engine: LmEngine) -> None:
        self._engine = engine
        self._rare: dict[str, bool] = {}

    @classmethod
    @contextlib.contextmanager
    def of(cls, model: Arpa) -> Iterator[LanguageModel]:
        """Yield an estimated model that is not stored anywhere."""
        with engine_of_model(model) as engine:
            made = cls.__new__(cls)
            made._begin(engine)
            yield made

    def score(self, words: Sequence[str]) -> tuple[float, int]:
        """Return the natural logarithm of a sentence's probability, its end included, and the number of OOV words."""
        found = self.detail(words)
        return found.logprob, found.oov

    def detail(self, words: Sequence[str]) -> Score:
        """Return the full score of a sentence."""
        return next(self.details([words]))

    def details(self, sentences: Sequence[Sequence[str]]) -> Iterator[Score]:
        """Yield the full score of each sentence; a store scores all of them at once."""
        for words, tokens in zip(sentences, self._tokens(sentences), strict=True):
            whole = unknown = 0.0
            count = oov = 0
            for logprob, missing in tokens:
                count += 1
                whole += logprob
                if missing:
                    oov += 1
                    unknown += logprob
            unseen = sum(self._unseen(word) for word in words if word not in SPECIALS)
            yield Score(whole, unknown, count, oov, unseen)

    def _unseen(self, word: str) -> bool:
        """Return whether a word's unigram probability does not exceed the unknown word's."""
        if word not in self._rare:
            self._rare[word] = self._engine.alone(word) <= self._engine.alone(UNK)
        return self._rare[word]

    def tokens(self, words: Sequence[str]) -> Iterator[tuple[float, bool]]:
        """Yield, for each word and the end, the natural logarithm of its probability and whether it is unknown.

        Literal ``<unk>``, ``<s>`` and ``</s>`` are left out, as in the estimation of a model.
        """
        return next(self._tokens([words]))

    def _tokens(self, sentences: Sequence[Sequence[str]]) -> Iterator[Iterator[tuple[float, bool]]]:
        given = [[word for word in words if word not in SPECIALS] for words in sentences]
        for tokens in self._engine.sentences(given):
            yield ((logprob * _NATURAL, missing) for logprob, missing in tokens)


class TextScoreSettings(Settings):
    """The text column that a model scores."""

    column: str = "text"
    """The column of text."""
    prefix: str = "lm"
    """The prefix of the added columns' names."""


class ScoreText(Actor):
    """Adds a model's scores of a text column, split at white space; null where there is no text.

    The columns are ``<prefix>_logprob`` and the other fields of :class:`Score`.
    """

    batch = BatchLimits(rows=4096)
    settings: TextScoreSettings

    def __init__(self, settings: TextScoreSettings, model: str) -> None:
        super().__init__(settings)
        self.model = LanguageModel(model)

    @classmethod
    def contract(cls, settings: TextScoreSettings) -> Mapping[str, Any]:
        """Return the columns of the scores."""
        return {"adds": fields(settings.prefix)}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with the scores of each text."""
        texts = _column(batch, self.settings.column)
        valid = texts.is_valid().to_numpy(zero_copy_only=False)
        found: list[Score | None] = [None] * len(texts)
        split = [[word for word in words if word] for words in split_words(texts).to_pylist()]
        for row, score in zip(np.flatnonzero(valid), self.model.details(split), strict=True):
            found[row] = score
        for field in fields(self.settings.prefix):
            name = field.name.removeprefix(f"{self.settings.prefix}_")
            values = [None if one is None else getattr(one, name) for one in found]
            batch = set_column(batch, field.name, pa.array(values, field.type))
        return batch


class ListScoreSettings(TextScoreSettings):
    """The column of lists of texts that a model scores."""

    column: str = "translations"
    """The column of lists, whose items have a ``text``."""


class ScoreLists(Actor):
    """Adds ``<prefix>_logprobs``: a model's log-probability of each text of a record's list, in order."""

    batch = BatchLimits(rows=4096)
    settings: ListScoreSettings

    def __init__(self, settings: ListScoreSettings, model: str) -> None:
        super().__init__(settings)
        self.model = LanguageModel(model)

    @classmethod
    def contract(cls, settings: ListScoreSettings) -> Mapping[str, Any]:
        """Return the column of the scores."""
        return {"adds": (cls._added(settings),)}

    @staticmethod
    def _added(settings: ListScoreSettings) -> pa.Field:
        return pa.field(f"{settings.prefix}_logprobs", pa.list_(pa.float32()))

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with the scores of each list."""
        lists = batch[self.settings.column].to_pylist()
        values = [
            None if one is None else [self.model.score((given["text"] or "").split())[0] for given in one]
            for one in lists
        ]
        added = self._added(self.settings)
        return set_column(batch, added.name, pa.array(values, added.type))


def fields(prefix: str) -> tuple[pa.Field, ...]:
    """Return the columns that :class:`ScoreText` adds; see :class:`Score`."""
    kinds = {"logprob": pa.float32(), "oov_logprob": pa.float32(), "words": pa.int32()}
    kinds |= {"oov": pa.int32(), "unseen": pa.int32()}
    return tuple(pa.field(f"{prefix}_{name}", kind) for name, kind in kinds.items())


def _column(batch: pa.Table, name: str) -> pa.Array:
    if name not in batch.column_names:
        raise UserError(
            f"language model: the records have no column {name!r}; they have {', '.join(batch.column_names)}"
        )
    column = batch[name].combine_chunks()
    return column if not isinstance(column, pa.ChunkedArray) else pa.concat_arrays(column.chunks)
