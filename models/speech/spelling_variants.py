"""How else words may be spelled, or pronounced: substitutions of letters or phones, learned from pairs of spellings.

Technique 5 of the decoder biasing of Dingliwal et al. (SLT 2022), grapheme to grapheme: a listed word is also looked
for as the recogniser would spell it. The model is the error model of Brill and Moore (ACL 2000): pairs are aligned by
edit distance, each difference is counted with up to some of its neighbours ("kn" for "n", "ght" for "t"), and its
probability is how often it was made where its left side stands. The edits' costs are learned from the pairs too, in a
few rounds (Ristad and Yianilos, 1998), so that letters that often stand for each other are aligned.

Symbols are letters, of words that are strings, or any strings, as phones, of words that are tuples of them.
"""

from __future__ import annotations

import heapq
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any, TypeVar

from pydantic import Field

from gristmill.shards.errors import UserError
from gristmill.shards.settings import Settings

Spelled = TypeVar("Spelled", str, tuple[str, ...])
Chunk = tuple[str, ...]
Step = tuple[Chunk, Chunk]  # of an alignment: one symbol or none of each side

_UNSEEN = 0.1  # of a count: what an edit has that no pair had


class SpellingSettings(Settings):
    """How substitutions are learned."""

    longest: int = Field(3, ge=1, le=6)
    """Symbols of a substitution, at most, on either side."""
    rounds: int = Field(3, ge=1)
    """Alignments of all pairs, each with the costs of edits that the one before taught."""
    seen: int = Field(2, ge=1)
    """Times that a substitution was made in the pairs, at least."""
    doubt: float = Field(2.0, ge=0)
    """Times that each chunk of symbols is taken to have been kept beside those of the pairs, as few prove little."""
    floor: float = Field(1e-3, gt=0, lt=1)
    """Least probability of a substitution, and of a symbol to be kept."""


@dataclass(frozen=True)
class SpellingTable:
    """Substitutions of chunks of symbols with their probabilities, given that the chunk stands there.

    Example:
        >>> pairs = [("phone", "fone"), ("graph", "graf"), ("phil", "fil"), ("top", "top"), ("nap", "nab")]
        >>> table = SpellingTable.learned(pairs, SpellingSettings(doubt=1))
        >>> [(word, round(math.exp(score), 2)) for word, score in table.variants("ralph", 2)]
        [('ralf', 0.75)]
        >>> SpellingTable.from_json(table.to_json()) == table
        True
    """

    substitutions: Mapping[Chunk, Mapping[Chunk, float]] = field(repr=False)

    @classmethod
    def learned(
        cls, pairs: Iterable[tuple[Sequence[str], Sequence[str]]], settings: SpellingSettings | None = None
    ) -> SpellingTable:
        """Return the table of pairs (as written, as heard); equal ones count, as they say what is kept.

        Raises:
            UserError: there is no pair of two words.
        """
        settings = settings or SpellingSettings()
        words = [(tuple(written), tuple(heard)) for written, heard in pairs if len(written) and len(heard)]
        if not words:
            raise UserError("spelling table: no pair of spellings; expected words as written and as heard")
        ways = [aligned(*pair, _first_costs) for pair in words]
        for _ in range(settings.rounds - 1):
            costs = _Costs(ways)
            ways = [aligned(*pair, costs) for pair in words]
        made: Counter[Step] = Counter()
        for way in ways:
            made.update((left, right) for _, left, right in _substitutions(way, settings.longest))
        stands: Counter[Chunk] = Counter()
        for written, _ in words:
            for start in range(len(written)):
                ends = range(start + 1, min(start + settings.longest, len(written)) + 1)
                stands.update(written[start:end] for end in ends)
        table: dict[Chunk, dict[Chunk, float]] = {}
        for symbol in sorted({(one,) for written, _ in words for one in written}):
            share = (made[symbol, symbol] + settings.doubt) / (stands[symbol] + settings.doubt)
            table[symbol] = {symbol: max(share, settings.floor)}
        for (left, right), count in sorted(made.items()):
            share = count / (stands[left] + settings.doubt)
            if left != right and count >= settings.seen and share >= settings.floor:
                table.setdefault(left, {})[right] = share
        return cls(table)

    def variants(self, word: Spelled, most: int, least: float = -7.0) -> list[tuple[Spelled, float]]:
        """Return the ``most`` likeliest other spellings of a word, best first, and their log-probabilities.

        A spelling's log-probability, ``least`` or higher, is that of the likeliest substitutions that make it; symbols
        that no pair had are kept. The search is exact.
        """
        symbols = tuple(word)
        moves = [self._moves(symbols, place) for place in range(len(symbols))]
        ahead = [0.0] * (len(symbols) + 1)  # the best way from each place to the end: what is left costs no less
        for place in range(len(symbols) - 1, -1, -1):
            ahead[place] = max(score + ahead[end] for end, _, score in moves[place])
        # Best first: the first way to a beginning of a spelling at a place of the word is the best one.
        queue: list[tuple[float, Chunk, int, float]] = [(-ahead[0], (), 0, 0.0)]
        done: set[tuple[int, Chunk]] = set()
        found: list[tuple[Chunk, float]] = []
        while queue and len(found) < most:
            bound, spelled, place, score = heapq.heappop(queue)
            if -bound < least:
                break
            if (place, spelled) in done:
                continue
            done.add((place, spelled))
            if place == len(symbols):
                if spelled and spelled != symbols:
                    found.append((spelled, score))
                continue
            for end, right, gained in moves[place]:
                total = score + gained
                heapq.heappush(queue, (-(total + ahead[end]), spelled + right, end, total))
        return [("".join(one) if isinstance(word, str) else one, score) for one, score in found]

    def _moves(self, symbols: Chunk, place: int) -> list[tuple[int, Chunk, float]]:
        """Return what may be made of the symbols from a place on: up to where, into what, at which log-probability."""
        here = symbols[place : place + 1]
        found = [] if here in self.substitutions else [(place + 1, here, 0.0)]
        for end in range(place + 1, len(symbols) + 1):
            several = self.substitutions.get(symbols[place:end], {})
            found += [(end, right, math.log(share)) for right, share in several.items()]
        return found

    def to_json(self) -> str:
        """Return the table as canonical JSON, which keeps each probability to the last bit."""
        rows = [
            [left, right, share]
            for left, several in sorted(self.substitutions.items())
            for right, share in sorted(several.items())
        ]
        return json.dumps({"substitutions": rows}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> SpellingTable:
        """Return the table written by :meth:`to_json`.

        Raises:
            UserError: it is none.
        """
        table: dict[Chunk, dict[Chunk, float]] = {}
        try:
            for left, right, share in json.loads(text)["substitutions"]:
                if not left or not 0 < share <= 1:
                    raise ValueError(f"{left} to {right} has the probability {share}")
                table.setdefault(tuple(left), {})[tuple(right)] = float(share)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"spelling table is not readable: {error}; expected that of to_json") from None
        return cls(table)


class _Costs:
    """What edits cost, nats: less the log of how often a symbol became another, or one was put in."""

    def __init__(self, ways: Iterable[Sequence[Step]]) -> None:
        made = Counter(step for way in ways for step in way)
        of: Counter[Chunk] = Counter()
        for (left, _), count in made.items():
            of[left] += count
        # A symbol put in is as likely as there are such for each symbol written.
        of[()] = sum(of.values())
        kinds = len({right for _, right in made})
        self._made = {step: -math.log(count / (of[step[0]] + _UNSEEN * kinds)) for step, count in made.items()}
        self._other = {left: -math.log(_UNSEEN / (count + _UNSEEN * kinds)) for left, count in of.items()}

    def __call__(self, left: Chunk, right: Chunk) -> float:
        known = self._made.get((left, right))
        return self._other[left] if known is None else known


def _first_costs(left: Chunk, right: Chunk) -> float:
    return float(left != right)


def aligned(written: Chunk, heard: Chunk, cost: Any = _first_costs) -> list[Step]:
    """Return the edits of the least cost between two spellings, each of a symbol or none on either side.

    Of ways that cost the same, the one that keeps or replaces symbols early is taken.

    Example:
        >>> aligned(("k", "n", "o"), ("n", "o", "w"))
        [(('k',), ()), (('n',), ('n',)), (('o',), ('o',)), ((), ('w',))]
    """
    rows, columns = len(written), len(heard)
    best = [[0.0] * (columns + 1) for _ in range(rows + 1)]
    for i in range(rows, -1, -1):
        for j in range(columns, -1, -1):
            if i < rows or j < columns:
                best[i][j] = min(c + best[k][m] for k, m, c in _edits(written, heard, i, j, cost))
    way: list[Step] = []
    i = j = 0
    while i < rows or j < columns:
        k, m, _ = min(_edits(written, heard, i, j, cost), key=lambda edit: edit[2] + best[edit[0]][edit[1]])
        way.append((written[i:k], heard[j:m]))
        i, j = k, m
    return way


def _edits(written: Chunk, heard: Chunk, i: int, j: int, cost: Any) -> Iterator[tuple[int, int, float]]:
    """Yield the edits at a place: up to where of both, and what they cost."""
    if i < len(written) and j < len(heard):
        yield i + 1, j + 1, cost(written[i : i + 1], heard[j : j + 1])
    if i < len(written):
        yield i + 1, j, cost(written[i : i + 1], ())
    if j < len(heard):
        yield i, j + 1, cost((), heard[j : j + 1])


def _substitutions(way: Sequence[Step], longest: int) -> set[tuple[int, Chunk, Chunk]]:
    """Return the symbols that are kept, and what differs, with up to ``longest`` symbols of what is around it.

    Each has its place in what is written. Of edits side by side, the first is not counted without the others, unless
    they are too many for one substitution.
    """
    differ = [left != right for left, right in way]
    joined = [False, *(one and other for one, other in pairwise(differ)), False]  # at cuts
    for first, end in _runs(differ):
        if max(sum(len(step[side]) for step in way[first:end]) for side in (0, 1)) > longest:
            joined[first + 1 : end] = [False] * (end - first - 1)
    found: set[tuple[int, Chunk, Chunk]] = set()
    at = 0
    for start, (symbol, _) in enumerate(way):
        left: Chunk = ()
        right: Chunk = ()
        for end in range(start + 1, len(way) + 1):
            left, right = left + way[end - 1][0], right + way[end - 1][1]
            if joined[start] or max(len(left), len(right)) > longest:
                break
            if left and not joined[end] and (end == start + 1 or any(differ[start:end])):
                found.add((at, left, right))
        at += len(symbol)
    return found


def _runs(marks: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """Yield the first and the end of each run of marks that are set."""
    end = 0
    for mark, run in groupby(marks):
        first, end = end, end + len(list(run))
        if mark:
            yield first, end
