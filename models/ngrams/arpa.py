"""N-gram models as arrays, and the ARPA format that KenLM and every other toolkit reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.shards.errors import UserError

UNK, BOS, EOS = "<unk>", "<s>", "</s>"
_LINES = 1 << 17  # formatted at a time


@dataclass(frozen=True)
class Grams:
    """The n-grams of one order.

    ``words`` is (n-grams, order): indices into the model's list of words, in reading order; ``logprob`` and ``backoff``
    are
    (n-grams,) float32 logarithms to base 10. The highest order has no back-offs.
    """

    words: np.ndarray
    logprob: np.ndarray
    backoff: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.words)


@dataclass(frozen=True)
class Arpa:
    """A back-off model: its words and, from the unigrams on, the n-grams of each order."""

    words: Sequence[str]
    orders: Sequence[Grams]

    @property
    def order(self) -> int:
        """The highest order."""
        return len(self.orders)

    def chunks(self) -> Iterator[bytes]:
        """Yield the ARPA text in chunks."""
        yield header([len(grams) for grams in self.orders])
        names = pa.array(self.words, pa.string())
        for order, grams in enumerate(self.orders, start=1):
            yield section(order)
            yield from lines(names, grams)
        yield END

    def to_bytes(self) -> bytes:
        """Return the ARPA text."""
        return b"".join(self.chunks())

    @staticmethod
    def from_bytes(data: bytes, source: str = "the model") -> Arpa:
        """Read an ARPA text.

        Raises:
            UserError: it is not an ARPA file; the message names the source.
        """
        counts = [int(count) for count in re.findall(rb"^ngram \d+=(\d+)\s*$", data[:4096], re.MULTILINE)]
        places = [re.search(rb"^\\%d-grams:\s*$" % order, data, re.MULTILINE) for order in range(1, len(counts) + 1)]
        end = data.rfind(b"\\end\\")
        if not counts or end < 0 or None in places:
            raise UserError(f"{source}: not an ARPA file (\\data\\, \\1-grams: ... \\end\\)")
        names: pa.Array | None = None
        orders = []
        for order, (count, place) in enumerate(zip(counts, places, strict=True), start=1):
            following = places[order].start() if order < len(places) else end  # type: ignore[union-attr]
            body = data[place.end() : following].strip(b"\r\n")  # type: ignore[union-attr]
            try:
                names, grams = _parse(body, order, names, highest=order == len(counts))
            except (pa.ArrowInvalid, ValueError) as error:
                raise UserError(f"{source}: its {order}-grams cannot be read: {error}") from None
            if len(grams) != count:
                raise UserError(f"{source}: has {len(grams)} {order}-grams; its header says {count}")
            orders.append(grams)
        assert names is not None
        return Arpa(names.to_pylist(), orders)


END = b"\n\\end\\\n"


def header(counts: Sequence[int]) -> bytes:
    """Return the header of an ARPA text: the number of n-grams of each order."""
    counted = "".join(f"ngram {order}={count}\n" for order, count in enumerate(counts, start=1))
    return f"\\data\\\n{counted}".encode()


def section(order: int) -> bytes:
    """Return the section heading of an order's n-grams."""
    return f"\n\\{order}-grams:\n".encode()


def lines(names: pa.Array, grams: Grams) -> Iterator[bytes]:
    """Yield the lines of n-grams in chunks; a line is the log-probability, the words and the back-off, if any."""
    for start in range(0, len(grams), _LINES):
        some = slice(start, start + _LINES)
        text = pc.binary_join_element_wise(*(names.take(pa.array(column)) for column in grams.words[some].T), " ")
        parts = [_numbers(grams.logprob[some]), text]
        if grams.backoff is not None:
            parts.append(_numbers(grams.backoff[some]))
        whole = pc.binary_join_element_wise(pc.binary_join_element_wise(*parts, "\t"), "", "\n")
        # An Arrow string array stores its values back to back.
        offsets = np.frombuffer(whole.buffers()[1], np.int32)
        yield whole.buffers()[2].to_pybytes()[offsets[whole.offset] : offsets[whole.offset + len(whole)]]


def _numbers(values: np.ndarray) -> pa.Array:
    """Return numbers in their shortest form; adding 0 turns -0 into 0."""
    return pc.cast(pa.array(values.astype(np.float32) + np.float32(0.0)), pa.string())


def _parse(body: bytes, order: int, names: pa.Array | None, *, highest: bool) -> tuple[pa.Array, Grams]:
    given = pa.array(body.split(b"\n") if body else [], pa.binary()).cast(pa.string())
    fields = pc.split_pattern(pc.utf8_rtrim(given, "\r\n\t "), "\t")
    most = pc.max(pc.list_value_length(fields)).as_py() or 2
    if most > 3 or (pc.min(pc.list_value_length(fields)).as_py() or 2) < 2:
        raise ValueError("a line is not a log-probability, words and an optional back-off, tab-separated")
    logprob = pc.cast(pc.list_element(fields, 0), pa.float32()).to_numpy(zero_copy_only=False)
    text = pc.list_element(fields, 1)
    backoff = None
    if not highest:
        backoff = np.zeros(len(text), np.float32)
        has = pc.equal(pc.list_value_length(fields), 3)
        if pc.any(has).as_py():
            backoff[has.to_numpy(zero_copy_only=False)] = pc.cast(
                pc.list_element(fields.filter(has), 2), pa.float32()
            ).to_numpy(zero_copy_only=False)
    if names is None:
        return text, Grams(np.arange(len(text), dtype=np.uint32)[:, None], logprob, backoff)
    split = pc.split_pattern(text, " ")
    if not pc.all(pc.equal(pc.list_value_length(split), order)).as_py() and len(text):
        raise ValueError(f"a line does not have {order} words")
    words = pc.index_in(pc.list_flatten(split), value_set=names)
    if words.null_count:
        raise ValueError("a word is not among the unigrams")
    return names, Grams(words.to_numpy().astype(np.uint32).reshape(-1, order), logprob, backoff)


def packed(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Return two 32-bit numbers packed into one of 64 bits."""
    return (high.astype(np.uint64) << np.uint64(32)) | low.astype(np.uint64)
