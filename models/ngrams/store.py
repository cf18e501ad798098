"""A compact n-gram store: a back-off model as one file that is mapped into memory, so that a machine holds one copy.

    from gristmill.actors.ngram_files import open_store
    store = open_store("models/lm.store")
    logprobs, states = store.score([store.begin, store.begin], store.look_up(["turn", "switch"]))

An n-gram takes about what it has in a LOUDS tree (Sorensen and Allauzen, Unary Data Structures for Language Models,
Interspeech 2011), and is found in a few accesses of memory, as in DashHashLM (Strimel et al., Rescore in a Flash:
Compact, Cache Efficient Hashing Data Structures for n-gram Language Models, Interspeech 2020), of which only the
abstract was at hand. A state, its arcs and the way between them:

- words are numbered by a hash of their letters (:mod:`gristmill.models.ngrams.words`);
- the arcs of a state lie together, sorted by the number of their word: that is evenly spread, so that the place of a
  word follows from its number, without a table that would have room to spare;
- an arc has the word (bits that the vocabulary needs) and the log-probability (31 bits, or the place in a table of
  distinct values where that is smaller); the state that it leads to is a rank;
- a state has the number of its back-off state, its back-off and the lower bits of its first arc; the upper ones are
  in a bit map (Elias-Fano) of some three bits a state.

A file is: ``gristlm`` and a line feed; the version and the bytes of the header, uint32 each; the SHA-256 of the
header; the header, JSON, which names the arrays with their kind, length, first byte and SHA-256; the arrays, each at
a multiple of 64 bytes. All numbers are little-endian. The compiled look-up is
:func:`gristmill.models.ngrams.lookup.look_up`, which other compiled code may call.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.models.ngrams.batch import look_up_all
from gristmill.models.ngrams.build import BuiltStore
from gristmill.models.ngrams.lookup import score_sentences
from gristmill.models.ngrams.words import WordTable
from gristmill.shards import canonical
from gristmill.shards.errors import UserError

MAGIC = b"gristlm\n"
VERSION = 1
_LINE = 64  # bytes at whose multiples arrays begin
_FIXED = len(MAGIC) + 8 + 32
_KINDS = {name: np.dtype(name) for name in ("uint8", "uint32", "uint64", "int64", "float32")}
_AGAIN = "build it again with `gristmill lm build`"


def chunks(built: BuiltStore) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a store's file."""
    arrays = {"body": built.body, **{f"word_{name}": one for name, one in built.words._asdict().items()}}
    listed, at = {}, 0
    for name, array in arrays.items():
        array = arrays[name] = np.ascontiguousarray(array)
        place = {"kind": array.dtype.name, "shape": list(array.shape), "at": at}
        listed[name] = {**place, "sha256": canonical.sha256(_bytes(array))}
        at += -(-array.nbytes // _LINE) * _LINE
    header = canonical.dumps({"facts": built.facts, "arrays": listed})
    header += b" " * (-(_FIXED + len(header)) % _LINE)
    yield MAGIC + np.array([VERSION, len(header)], "<u4").tobytes() + bytes.fromhex(canonical.sha256(header)) + header
    for array in arrays.values():
        yield _bytes(array)
        yield bytes(-array.nbytes % _LINE)


class LmStore:
    """An n-gram model whose states are numbers; scores are base-10 logarithms, float32.

    ``begin`` is the state at the beginning of a sentence, and ``empty`` that without any word before; ``end_word`` and
    ``unknown_word`` are the numbers of ``</s>`` and ``<unk>``; ``facts`` is what is told of the store: ``order``,
    ``grams`` by order, ``states``, ``settings``, ``errors``, and of a file its ``bytes``. ``body`` and ``words`` are
    for compiled callers, who see to it that the store lives as long as they use them.

    Example:
        >>> from gristmill.models.ngrams.build import build
        >>> from gristmill.models.ngrams.estimate import NgramSettings, estimate
        >>> texts = [["turn", "it", "on"], ["turn", "it", "off"]]
        >>> model = estimate(texts, NgramSettings(order=3), ["turn", "it", "on"])
        >>> store = LmStore.of(b"".join(chunks(build(model))))
        >>> scores, states = store.score([store.begin], store.look_up(["turn"]))
        >>> bool(scores[0] == store.sentence(["turn", "it", "on"])[0]), store.facts["order"]
        (True, 3)
    """

    empty = 0

    def __init__(self, body: np.ndarray, words: WordTable, facts: dict[str, Any]) -> None:
        for array in (body, *words):
            array.flags.writeable = False  # one type for the compiled functions
        self.body, self.words, self.facts = body, words, facts
        self.begin, self.end_word, self.unknown_word = (
            int(facts[name]) for name in ("begin", "end_word", "unknown_word")
        )
        self.states, self.order = int(facts["states"]), int(facts["order"])

    @staticmethod
    def of(data: bytes | mmap.mmap, source: str = "the store", *, check: bool = True) -> LmStore:
        """Return the store that bytes hold, which are not copied; ``source`` is how errors name them.

        ``check`` compares the checksums, which reads all of it.

        Raises:
            UserError: they are no store, or one of another version, or damaged.
        """
        whole = np.frombuffer(data, np.uint8)
        whole.flags.writeable = False
        if whole[: len(MAGIC)].tobytes() != MAGIC:
            raise UserError(f"{source}: not a store of n-grams; expected a file that `gristmill lm build` wrote")
        version, length = np.frombuffer(whole[len(MAGIC) : len(MAGIC) + 8].tobytes().ljust(8, b"\0"), "<u4").tolist()
        if version != VERSION:
            raise UserError(f"{source}: a store of version {version}; expected {VERSION}: {_AGAIN}")
        header = whole[_FIXED : _FIXED + length].tobytes()
        if len(header) != length or canonical.sha256(header) != whole[len(MAGIC) + 8 : _FIXED].tobytes().hex():
            raise UserError(f"{source}: its header is damaged; {_AGAIN}")
        found = json.loads(header)
        arrays = {name: _array(whole, _FIXED + length, one, name, source) for name, one in found["arrays"].items()}
        if check:
            for name, one in found["arrays"].items():
                array = arrays[name]
                if canonical.sha256(_bytes(array)) != one["sha256"]:
                    raise UserError(f"{source}: is damaged ({name}); {_AGAIN}")
        words = WordTable(*(arrays[f"word_{name}"] for name in WordTable._fields))
        return LmStore(arrays["body"], words, {**found["facts"], "bytes": whole.size})

    def look_up(self, words: Sequence[str] | pa.Array) -> np.ndarray:
        """Return the numbers (words,) int32 of words; that of ``<unk>`` for unknown ones."""
        return self.words.find(words, self.unknown_word)

    def score(self, states: Any, words: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the log-probabilities (n,) float32 of words in states, and the next states (n,) int32.

        ``states`` and ``words`` are whole numbers (n,): states of this store and numbers that :meth:`look_up` gave.

        Raises:
            ValueError: the lengths differ, or a number is not one of this store's.
        """
        given = [np.ascontiguousarray(one, np.int32) for one in (states, words)]
        if given[0].shape != given[1].shape or given[0].ndim != 1:
            raise ValueError(f"states are {given[0].shape}, words {given[1].shape}; expected one state for each word")
        for what, numbers, most in zip(("state", "word"), given, (self.states, len(self.words)), strict=True):
            if numbers.size and (numbers.min() < 0 or numbers.max() >= most):
                raise ValueError(f"a number is not that of a {what}; expected 0 to {most - 1}")
        scores, following = np.empty(len(given[0]), np.float32), np.empty(len(given[0]), np.int32)
        look_up_all(self.body, *given, scores, following)
        return scores, following

    def sentence(self, words: Sequence[str]) -> np.ndarray:
        """Return the log-probabilities (words + 1,) float32 of a sentence's words and its end."""
        return self.sentences(self.look_up(words), np.array([len(words)]))

    def sentences(self, words: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Return the log-probabilities (words + sentences,) of sentences, of each its words and its end.

        ``words`` are the numbers of all words, (words,), and ``lengths`` the words of each sentence.
        """
        ends = np.cumsum(np.asarray(lengths, np.int64) + 1)
        given = np.full(len(words) + len(ends), self.end_word, np.int32)
        inner = np.ones(len(given), bool)
        inner[ends - 1] = False
        given[inner] = words
        scores = np.empty(len(given), np.float32)
        score_sentences(self.body, self.begin, given, ends, scores)
        return scores


def _bytes(array: np.ndarray) -> bytes | memoryview:
    return array.data.cast("B") if array.size else b""  # a view without bytes cannot be cast


def _array(whole: np.ndarray, begin: int, one: dict[str, Any], name: str, source: str) -> np.ndarray:
    kind, shape = _KINDS[one["kind"]], one["shape"]
    size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    data = whole[begin + one["at"] : begin + one["at"] + size]
    if len(data) != size:
        raise UserError(f"{source}: ends within {name}, so it was not copied whole; {_AGAIN}")
    return data.view(kind).reshape(shape)
