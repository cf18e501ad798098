"""How well labels are projected to another wording of which the annotation is known, beside string matching."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.actors.nlu.annotation import read_brackets
from gristmill.actors.sources.reading import lines, read_json
from gristmill.models.measures.significance import Ratio
from gristmill.models.nlu.domain import Slot
from gristmill.models.sessions.projection import ProjectionSettings, project, string_match
from gristmill.shards.errors import RejectRecord, UserError

SYSTEMS = ("span_exact", "string_match")
_APART = re.compile(r"[\[\]<>(){}_,;!?\"]|(?<=\s)[-–](?=\s)")


@dataclass(frozen=True)
class WordingPair:
    """An annotated wording and another one, with the names and the values (letters and digits) of its slots.

    ``changed`` says of each slot whether its value is written in another way there.
    """

    id: str
    tokens: tuple[str, ...]
    slots: tuple[Slot, ...]
    target: tuple[str, ...]
    values: tuple[tuple[str, str], ...]
    changed: tuple[bool, ...]


@dataclass(frozen=True)
class ProjectionScores:
    """Slots that are not projected to their whole value and no more, of all slots, by wording pair; and those of
    requests with such a slot. The first is 1 less the exact spans, for
    :func:`gristmill.models.measures.significance.wer_interval`."""

    slots: Ratio
    requests: Ratio


def typed_pairs(place: str) -> Iterator[WordingPair]:
    """Yield the pairs of JSONL with ``annotation`` (slots in brackets), ``typed`` and ``changed``: the name of a slot,
    and what of its value is written otherwise, there and in what was typed (``hwu64_typed_vs_normalised``).

    Raises:
        UserError: a line has no such keys.
    """
    for number, line in lines(place):
        try:
            row = read_json(line.decode())
            tokens, spans = read_brackets(row["annotation"])
            typed, left = row["typed"], [tuple(one) for one in row["changed"]]
        except (KeyError, TypeError, ValueError, RejectRecord):
            raise UserError(f"{place}: line {number}; expected annotation, typed and changed") from None
        slots = [Slot(name, " ".join(tokens[start:end]), start, end) for name, start, end in spans]
        values, changed = [], []
        for slot in slots:
            value, was = letters(slot.value), letters(slot.value)
            for one in list(left):
                if one[0] == slot.name and letters(one[1]) in value:
                    value = value.replace(letters(one[1]), letters(one[2]), 1)
                    left.remove(one)
            values.append((slot.name, value))
            changed.append(value != was)
        target = [word for one in _APART.sub(" ", typed.lower()).split() if (word := one.strip(".:'"))]
        yield WordingPair(
            f"{place}#{number}", tuple(tokens), tuple(slots), tuple(target), tuple(values), tuple(changed)
        )


def group_pairs(place: str) -> Iterator[WordingPair]:
    """Yield each wording of a group and the next one, of JSONL with ``wordings``: lists of an id, a text and the text
    with its slots in brackets (``hwu64_same_meaning_groups``).

    Raises:
        UserError: a line has no such wordings.
    """
    for number, line in lines(place):
        try:
            said = [read_brackets(one[2]) for one in read_json(line.decode())["wordings"]]
        except (KeyError, TypeError, ValueError, IndexError, RejectRecord):
            raise UserError(f"{place}: line {number}; expected wordings with their annotation") from None
        for n, (tokens, spans) in enumerate(said):
            target, theirs = said[(n + 1) % len(said)]
            slots = [Slot(name, " ".join(tokens[start:end]), start, end) for name, start, end in spans]
            values = [(name, letters(" ".join(target[start:end]))) for name, start, end in theirs]
            if slots:
                same = tuple(False for _ in values)
                yield WordingPair(
                    f"{place}#{number}/{n}", tuple(tokens), tuple(slots), tuple(target), tuple(values), same
                )


def score_pairs(
    pairs: Sequence[WordingPair], settings: ProjectionSettings, *, changed: bool | None = None
) -> dict[str, ProjectionScores]:
    """Return the scores of the projection and of string matching; ``changed``: of slots that are (not) written
    otherwise alone.

    A refused request has no slot right; string matching is asked for each slot by itself, so that one that it does not
    find costs no other.
    """
    found: dict[str, list[tuple[int, int]]] = {name: [] for name in SYSTEMS}
    for pair in pairs:
        projected, matched = _projected(pair, settings), _matched(pair)
        for name, given in zip(SYSTEMS, (projected, matched), strict=True):
            rest, wrong, total = list(given), 0, 0
            for wanted, other in zip(pair.values, pair.changed, strict=True):
                right = wanted in rest
                if right:
                    rest.remove(wanted)
                if changed is None or other == changed:
                    wrong, total = wrong + (not right), total + 1
            found[name].append((wrong, total))
    names = tuple(pair.id for pair in pairs)
    return {name: _scores(np.array(counts).reshape(-1, 2), names) for name, counts in found.items()}


def letters(text: str) -> str:
    """Return the letters and digits of a text, in lower case: what is compared of values, whatever their tokens.

    Example:
        >>> letters("8:30 A.M.")
        '830am'
    """
    return re.sub(r"[\W_]", "", text.lower())


def _scores(counts: np.ndarray, names: tuple[str, ...]) -> ProjectionScores:
    there = (counts[:, 1] > 0).astype(np.int64)
    return ProjectionScores(
        Ratio(counts[:, 0], counts[:, 1], names), Ratio((counts[:, 0] > 0).astype(np.int64), there, names)
    )


def _projected(pair: WordingPair, settings: ProjectionSettings) -> list[tuple[str, str]]:
    try:
        return _plain(project(pair.tokens, pair.slots, pair.target, settings).slots)
    except RejectRecord:
        return []


def _matched(pair: WordingPair) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for slot in pair.slots:
        try:
            found += _plain(string_match([slot], pair.target).slots)
        except RejectRecord:
            continue
    return found


def _plain(slots: Sequence[Slot]) -> list[tuple[str, Any]]:
    return [(slot.name, letters(slot.value)) for slot in slots]
