"""Projection of an interpretation from one wording of a request to another, without a model of either.

After MARUPA (Falke, Boese, Sorokin, Tirkaz and Lehnen, "Leveraging user paraphrasing behavior in dialog systems to
automatically collect annotations for long-tail utterances", COLING 2020, industry): words of the request that was
understood are mapped to those of the one that was not so that the differences between words are least, and slot labels
follow. The cost of a pair of units (:mod:`gristmill.models.sessions.units`) is 1 less their similarity, the greater
of the cosine of word vectors, where there are any, and the normalised edit similarity after numbers and times are
made alike; a unit may stay without a partner at the cost ``null``. Among equal mappings the order of words decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from pydantic import Field
from scipy.optimize import linear_sum_assignment

from gristmill.models.nlu.domain import Slot
from gristmill.models.sessions.units import WordUnit, join_units, read_units, similarity
from gristmill.shards.errors import RejectRecord
from gristmill.shards.settings import Settings

LEFT_OVER = "projection: a slot has no counterpart"
CROSSING = "projection: slots cross"
APART = "projection: a slot's counterpart is in pieces"
NO_WORDS = "projection: no words"
_ORDER = 0.1  # cost of a pair at opposite ends
_BESIDE = 0.06  # of each neighbour that is another one
_LITTLE = 3  # letters of words that weigh little: articles, prepositions

Vectors = Mapping[str, np.ndarray]
Similar = Callable[[str, str], float]


class ProjectionSettings(Settings):
    """How words are mapped."""

    null: float = Field(0.35, gt=0, le=1)
    """Cost of a unit without a partner; a pair is made where it costs less than two of these."""
    least: float = Field(0.5, ge=0, le=1)
    """The least similarity of two words that are taken for alike."""
    gaps: bool = True
    """Whether what a slot leaves over is mapped to what is left over between the same neighbours: a value that has no
    letters in common with the other ("new york", "ny"). Their confidence is ``gap``."""
    gap: float = Field(0.3, ge=0, le=1)
    """The similarity that is counted for such a pair."""


@dataclass(frozen=True)
class Projection:
    """The slots of the other wording, in its order, and the confidence in them, 0 to 1.

    The confidence is that of the least certain slot: the mean similarity of its words to theirs; without slots 1.
    """

    slots: tuple[Slot, ...]
    confidence: float


class _Match(NamedTuple):
    targets: tuple[int, ...]  # places of units, of which there are several in a gap only
    similarity: float


def project(
    tokens: Sequence[str],
    slots: Sequence[Slot],
    target: Sequence[str],
    settings: ProjectionSettings | None = None,
    *,
    lang: str = "en",
    vectors: Vectors | None = None,
) -> Projection:
    """Return the slots of the tokens ``target``, another wording of ``tokens``, which have ``slots``.

    ``vectors`` are word vectors of unit length, by word in lower case.

    Raises:
        RejectRecord: a slot has no counterpart, its counterpart is in pieces, or two slots' cross.

    Example:
        >>> given = "set an alarm for ten am in the kitchen".split()
        >>> slots = [Slot("time", "ten am", 4, 6), Slot("area", "kitchen", 8, 9)]
        >>> made = project(given, slots, "in kitchen wake me at 10am".split())
        >>> [(slot.name, slot.value) for slot in made.slots], made.confidence
        ([('area', 'kitchen'), ('time', '10am')], 1.0)
    """
    settings = settings or ProjectionSettings()
    if not tokens or not target:
        raise RejectRecord(NO_WORDS)
    borders = sorted({place for slot in slots for place in (slot.start, slot.end)})
    first, second = read_units(tokens, lang), read_units(target, lang)
    source, wanted = join_units(first, second, borders), join_units(second, first)
    label = _labels(source, slots)
    matched = align(source, wanted, settings, vectors)
    if settings.gaps:
        _fill(matched, label, len(wanted), settings.gap)
    found = [_span(number, source, wanted, label, matched) for number in range(len(slots))]
    ends = sorted((start, end) for start, end, _ in found)
    if any(before[1] > after[0] for before, after in pairwise(ends)):
        raise RejectRecord(CROSSING)
    made = [
        Slot(slot.name, " ".join(target[start:end]), start, end)
        for slot, (start, end, _) in zip(slots, found, strict=True)
    ]
    confidence = min((sure for _, _, sure in found), default=1.0)
    return Projection(tuple(sorted(made, key=lambda slot: slot.start)), confidence)


def string_match(slots: Sequence[Slot], target: Sequence[str]) -> Projection:
    """Return the slots whose values are in ``target`` word for word: the baseline.

    Values are looked for from the longest to the shortest, and no token is of two slots.

    Raises:
        RejectRecord: a value is not there.

    Example:
        >>> string_match([Slot("area", "the kitchen", 0, 2)], "lights in the kitchen off".split()).slots
        (Slot(name='area', value='the kitchen', start=2, end=4),)
    """
    words, made, taken = [word.lower() for word in target], [], np.zeros(len(target), bool)
    for slot in sorted(slots, key=lambda one: -len(one.value.split())):
        value = slot.value.lower().split()
        places = range(len(words) - len(value) + 1)
        at = next((n for n in places if words[n : n + len(value)] == value and not taken[n : n + len(value)].any()), -1)
        if at < 0 or not value:
            raise RejectRecord(LEFT_OVER)
        taken[at : at + len(value)] = True
        made.append(Slot(slot.name, " ".join(target[at : at + len(value)]), at, at + len(value)))
    return Projection(tuple(sorted(made, key=lambda slot: slot.start)), 1.0)


def align(
    source: Sequence[WordUnit], target: Sequence[WordUnit], settings: ProjectionSettings, vectors: Vectors | None = None
) -> list[_Match | None]:
    """Return the partner of each unit, at the least total cost, or ``None``."""
    n, m = len(source), len(target)
    alike = np.zeros((n, m))
    for i, one in enumerate(source):
        for j, other in enumerate(target):
            alike[i, j] = similarity(one.form, other.form, settings.least)
            if vectors and alike[i, j] < 1 and one.form in vectors and other.form in vectors:
                cosine = float(vectors[one.form] @ vectors[other.form])
                if not (one.is_number or other.is_number) and cosine >= settings.least:
                    alike[i, j] = max(alike[i, j], cosine)
    cost = 1 - alike
    apart = np.abs(np.arange(n)[:, None] / max(n - 1, 1) - np.arange(m)[None] / max(m - 1, 1))
    beside = np.full((n + 2, m + 2), 0.0)
    beside[1:-1, 1:-1] = alike
    beside[0, 0] = beside[-1, -1] = 1.0  # the ends of both
    cost = cost + _ORDER * apart + _BESIDE * (2 - beside[:-2, :-2] - beside[2:, 2:])
    cost[alike == 0] = 4.0  # never cheaper than two nulls
    whole = np.full((n + m, n + m), 0.0)
    whole[:n, :m] = cost
    whole[:n, m:] = whole[n:, :m] = settings.null
    rows, columns = linear_sum_assignment(whole)
    found: list[_Match | None] = [None] * n
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        if row < n and column < m:
            found[row] = _Match((column,), float(alike[row, column]))
    return found


def _labels(source: Sequence[WordUnit], slots: Sequence[Slot]) -> list[int | None]:
    """Return the number of the slot that each unit is in."""
    return [
        next((n for n, slot in enumerate(slots) if unit.start < slot.end and slot.start < unit.end), None)
        for unit in source
    ]


def _fill(matched: list[_Match | None], label: Sequence[int | None], size: int, sure: float) -> None:
    """Map runs of a slot's units that are left over to what is left over between the same neighbours."""
    taken = {one for match in matched if match is not None for one in match.targets}
    place = 0
    while place < len(matched):
        if matched[place] is not None:
            place += 1
            continue
        end = place
        while end < len(matched) and matched[end] is None:
            end += 1
        before = matched[place - 1] if place else _Match((-1,), 1.0)
        after = matched[end] if end < len(matched) else _Match((size,), 1.0)
        assert before is not None
        assert after is not None
        gap = range(before.targets[-1] + 1, after.targets[0])
        own = range(place, end)
        labels = {label[one] for one in own}
        if gap and not taken & set(gap):
            if len(labels) == 1 and label[place] is not None:
                # One to one from the end, where the head of a phrase is, and the rest of the gap goes with the first.
                first = max(place, end - len(gap))
                for one in range(first, end):
                    at = len(gap) - (end - one)
                    matched[one] = _Match(tuple(gap[0 if one == first else at : at + 1]), sure)
            elif len(own) == len(gap):
                for one, other in zip(own, gap, strict=True):
                    matched[one] = _Match((other,), sure) if label[one] is not None else None
        place = end


def _span(
    number: int,
    source: Sequence[WordUnit],
    target: Sequence[WordUnit],
    label: Sequence[int | None],
    matched: Sequence[_Match | None],
) -> tuple[int, int, float]:
    """Return the tokens of a slot's counterpart, start and end, and its confidence."""
    own = [place for place, one in enumerate(label) if one == number]
    mapped = {one: place for place, match in enumerate(matched) if match is not None for one in match.targets}
    inside = sorted(one for one, place in mapped.items() if place in own)
    pieces = _pieces(inside, mapped, set(own))
    if not pieces:
        raise RejectRecord(LEFT_OVER)
    best = max(pieces, key=lambda piece: (sum(_weight(target[one]) for one in piece), -piece[0]))
    lost = [one for piece in pieces if piece is not best for one in piece]
    if any(len(target[one].form) > _LITTLE or target[one].is_number for one in lost):
        raise RejectRecord(APART)
    total = sum(_weight(source[place]) for place in own)
    kept = 0.0
    for place in own:
        match = matched[place]
        if match is not None and match.targets[0] in best:
            kept += _weight(source[place]) * match.similarity
    heavy = [place for place in own if _weight(source[place]) == 1]
    if heavy and not any(mapped.get(one) in heavy for one in best):
        raise RejectRecord(LEFT_OVER)  # its articles alone have one
    return target[best[0]].start, target[best[-1]].end, kept / total


def _pieces(inside: Sequence[int], mapped: Mapping[int, int], own: set[int]) -> list[list[int]]:
    """Return the units of a counterpart in pieces: between two of one piece no unit is a partner of another word."""
    pieces: list[list[int]] = []
    for one in inside:
        if pieces and all(mapped.get(between, next(iter(own))) in own for between in range(pieces[-1][-1], one)):
            pieces[-1].append(one)
        else:
            pieces.append([one])
    return pieces


def _weight(unit: WordUnit) -> float:
    return 1.0 if len(unit.form) > _LITTLE or unit.is_number else 0.3
