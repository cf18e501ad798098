"""What scores text by an n-gram model: the compact store (:mod:`gristmill.models.ngrams.store`), or KenLM.

Both give the same scores, to the last bit: KenLM (Heafield, WMT 2011) reads ARPA files sooner, and is what the store is
tested against; the store is mapped, so that the processes of a machine share one copy, and needs no further package.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from gristmill.actors.ngram_files import BINARIES, STORE, built, read_store
from gristmill.models.ngrams.arpa import UNK, Arpa
from gristmill.shards.errors import UserError
from gristmill.shards.scratch import scratch

if TYPE_CHECKING:  # numba is imported with it
    from gristmill.models.ngrams.store import LmStore


class LmEngine(Protocol):
    """Scores of sentences: base-10 logarithms, each with whether the word is unknown."""

    def sentences(self, some: Sequence[Sequence[str]]) -> Iterator[Sequence[tuple[float, bool]]]:
        """Yield, for each sentence, the scores of its words and its end."""
        ...

    def alone(self, word: str) -> float:
        """Return the score of a word without any before it."""
        ...


def kenlm_installed() -> bool:
    """Return whether KenLM can be used."""
    try:
        import kenlm  # noqa: F401
    except ImportError:
        return False
    return True


def engine_of(path: str, url: str) -> LmEngine:
    """Return the engine of a local file that was given as a URL.

    An ARPA file is read by KenLM where it is installed, and else made into a store in this process's memory.

    Raises:
        UserError: the file cannot be read, or is KenLM's own and KenLM is not installed.
    """
    if kenlm_installed() and not path.endswith(STORE):
        return Kenlm(path, url)
    if path.endswith(BINARIES):
        raise UserError(f"{url}: KenLM is not installed: run `pip install '.[translation]'`, or use the ARPA file")
    return StoredLm(read_store(path, url))


@contextlib.contextmanager
def engine_of_model(model: Arpa) -> Iterator[LmEngine]:
    """Yield the engine of a model that is not stored anywhere."""
    if not kenlm_installed():
        yield StoredLm(built(model))
        return
    with scratch() as folder:
        path = folder / "lm.arpa"
        with path.open("wb") as out:
            out.writelines(model.chunks())
        yield Kenlm(str(path), str(path))


class Kenlm:
    """KenLM's model of an ARPA file or a binary."""

    def __init__(self, path: str, url: str) -> None:
        import kenlm

        settings = kenlm.Config()
        settings.show_progress = False
        settings.arpa_complain = kenlm.ARPALoadComplain.NONE
        try:
            self._model = kenlm.Model(path, settings)
        except OSError as error:
            raise UserError(f"{url}: KenLM cannot read this model: {' '.join(str(error).split())}") from None

    def sentences(self, some: Sequence[Sequence[str]]) -> Iterator[Sequence[tuple[float, bool]]]:
        """See :class:`LmEngine`."""
        for words in some:
            yield [(logprob, missing) for logprob, _, missing in self._model.full_scores(" ".join(words))]

    def alone(self, word: str) -> float:
        """See :class:`LmEngine`."""
        return self._model.score(word, bos=False, eos=False)


class StoredLm:
    """A compact store's model."""

    def __init__(self, store: LmStore) -> None:
        self._store = store

    def sentences(self, some: Sequence[Sequence[str]]) -> Iterator[Sequence[tuple[float, bool]]]:
        """See :class:`LmEngine`."""
        # Split at white space of ASCII, as KenLM does.
        split = [[word.decode() for word in " ".join(words).encode().split()] for words in some]
        lengths = np.array([len(words) for words in split], np.int64)
        words = self._store.look_up([word for one in split for word in one])
        scores = self._store.sentences(words, lengths).tolist()
        missing = np.zeros(len(scores), bool)
        ends = np.cumsum(lengths + 1)
        inner = np.ones(len(scores), bool)
        inner[ends - 1] = False
        missing[inner] = words == self._store.unknown_word
        told = missing.tolist()
        for end, length in zip(ends.tolist(), lengths.tolist(), strict=True):
            yield list(zip(scores[end - length - 1 : end], told[end - length - 1 : end], strict=True))

    def alone(self, word: str) -> float:
        """See :class:`LmEngine`."""
        number = [self._store.unknown_word] if word == UNK else self._store.look_up([word])
        return float(self._store.score([self._store.empty], number)[0][0])
