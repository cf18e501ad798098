"""CTC decoding: the best path, and prefix beam search with an n-best list."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from gristmill.shards.errors import UserError
from gristmill.shards.settings import Settings, Size

NEVER = -math.inf


class DecodingSettings(Settings):
    """Settings of the search for an utterance's text."""

    beam: Size = Field(0, ge=0)
    """Prefixes kept by the beam search; 0: best path."""


def greedy(log_probs: np.ndarray) -> list[int]:
    """Return the units of the best path of log-probabilities (T, V).

    Example:
        >>> greedy(np.log([[0.1, 0.8, 0.1], [0.1, 0.8, 0.1], [0.8, 0.1, 0.1], [0.1, 0.1, 0.8]]))
        [1, 2]
    """
    return collapse(log_probs.argmax(axis=1))


def best_units(log_probs: np.ndarray, settings: DecodingSettings) -> list[int]:
    """Return the units that a search finds in log-probabilities (T, V)."""
    if settings.beam == 0:
        return greedy(log_probs)
    found = beam_search(log_probs, settings.beam)
    return list(found[0].units) if found else []


def collapse(path: np.ndarray) -> list[int]:
    """Return the units of a path, one id per frame (T,): repeats merged, then blanks (0) removed."""
    if not len(path):
        return []
    fresh = np.concatenate([[True], path[1:] != path[:-1]])
    return path[fresh & (path != 0)].tolist()


@dataclass(frozen=True)
class Hypothesis:
    """Units, and the summed log-probability of their alignments within the beam."""

    units: tuple[int, ...]
    score: float


def beam_search(
    log_probs: np.ndarray, beam: int = 16, *, nbest: int = 1, tokens: int = 8, threshold: float = -12.0
) -> list[Hypothesis]:
    """Return what :func:`prefix_beam_search` finds, bit by bit, many times as fast.

    The first call of a process imports numba, and the first on a machine compiles the search, which takes seconds.
    Other threads run meanwhile, so that utterances can be searched side by side.

    Raises:
        UserError: ``log_probs`` is not (T, V) with a blank, or there is no ``beam`` or no ``tokens``.

    Example:
        >>> log_probs = np.log([[0.4, 0.3, 0.3], [0.4, 0.5, 0.1]])
        >>> [(one.units, round(math.exp(one.score), 2)) for one in beam_search(log_probs, nbest=2)]
        [((1,), 0.47), ((2,), 0.19)]
    """
    from gristmill.models.speech import search_kernels  # compiles

    log_probs = checked(log_probs)
    if min(beam, tokens) < 1:
        raise UserError(f"search: a beam of {beam} and {tokens} tokens a frame; expected 1 or more of both")
    spelled, bounds, scores = search_kernels.search(log_probs, beam, max(nbest, 0), tokens, float(threshold))
    units, ends = spelled.tolist(), bounds.tolist()
    return [
        Hypothesis(tuple(units[start:end]), score)
        for start, end, score in zip(ends[:-1], ends[1:], scores.tolist(), strict=True)
    ]


def checked(log_probs: np.ndarray) -> np.ndarray:
    """Return log-probabilities (T, V) as kernels read them: float64, for which alone they are compiled, in C order.

    Raises:
        UserError: they are of another shape, or there is no blank.
    """
    log_probs = np.asarray(log_probs)
    if log_probs.ndim != 2 or not log_probs.shape[1]:
        raise UserError(f"log-probabilities are {log_probs.shape}; expected (frames, units), the blank the first unit")
    return np.ascontiguousarray(log_probs, np.float64)


def prefix_beam_search(
    log_probs: np.ndarray, beam: int = 16, *, nbest: int = 1, tokens: int = 8, threshold: float = -12.0
) -> list[Hypothesis]:
    """Return the ``nbest`` unit strings of log-probabilities (T, V), best first (Hannun et al., 2014).

    Each frame extends at most ``beam`` prefixes by at most ``tokens`` units; units below ``threshold``
    (log-probability) are skipped, except the blank. With large ``beam`` and ``tokens`` and a ``threshold`` of -inf the
    search is exact. It says what is right: :func:`beam_search` is tested against it.

    Example:
        >>> log_probs = np.log([[0.4, 0.3, 0.3], [0.4, 0.5, 0.1]])
        >>> [(one.units, round(math.exp(one.score), 2)) for one in prefix_beam_search(log_probs, nbest=3)]
        [((1,), 0.47), ((2,), 0.19), ((), 0.16)]
    """
    # Prefixes are numbered nodes of a tree: extending one costs a dictionary lookup, not the copy of a string.
    parents, last = [-1], [0]
    children: dict[tuple[int, int], int] = {}
    beams: dict[int, tuple[float, float]] = {0: (0.0, NEVER)}  # node -> (ends in blank, ends in its last unit)
    order = np.argsort(-log_probs, axis=1, kind="stable")[:, : tokens + 1]
    picked = np.take_along_axis(log_probs, order, axis=1)
    for frame, (units, values) in enumerate(zip(order.tolist(), picked.tolist(), strict=True)):
        blank = float(log_probs[frame, 0])
        moves = [(u, v) for u, v in zip(units, values, strict=True) if u != 0 and v >= threshold and v > NEVER]
        moves = moves[:tokens]
        scores = dict(moves)
        grown: dict[int, list[float]] = {}
        for node, (in_blank, in_unit) in beams.items():
            total = _add(in_blank, in_unit)
            end = last[node]
            entry = grown.get(node)
            if entry is None:
                entry = grown[node] = [NEVER, NEVER]
            entry[0] = _add(entry[0], total + blank)
            if node and end in scores:
                entry[1] = _add(entry[1], in_unit + scores[end])
            for unit, value in moves:
                gained = (in_blank if node and unit == end else total) + value
                if gained == NEVER:
                    continue
                child = children.get((node, unit))
                if child is None:
                    child = children[(node, unit)] = len(parents)
                    parents.append(node)
                    last.append(unit)
                entry = grown.get(child)
                if entry is None:
                    grown[child] = [NEVER, gained]
                else:
                    entry[1] = _add(entry[1], gained)
        ranked = sorted(grown.items(), key=lambda item: (-_add(*item[1]), item[0]))[:beam]
        beams = {node: (pair[0], pair[1]) for node, pair in ranked}
    found = sorted(((_add(*pair), node) for node, pair in beams.items()), key=lambda f: (-f[0], f[1]))
    return [Hypothesis(_spell(node, parents, last), score) for score, node in found[:nbest]]


def _add(a: float, b: float) -> float:
    """Return log(exp a + exp b)."""
    if a < b:
        a, b = b, a
    return a if b == NEVER else a + math.log1p(math.exp(b - a))


def _spell(node: int, parents: list[int], last: list[int]) -> tuple[int, ...]:
    units = []
    while node:
        units.append(last[node])
        node = parents[node]
    return tuple(reversed(units))
