"""Which entries of a list are heard in an utterance, wherever it is, so that the others need not be looked for.

An entry's score is that of the best CTC path that spells it in some window of frames, less that of the best path of any
units in that window: 0 where the entry is what the model hears, and the more below, the less it is like it. That is the
filler of keyword spotting, and the word spotter of Andrusenko et al. (2024, arXiv:2406.07096), whose paths compete with
the greedy result. A search with 10,000 entries takes less than 0.1 s for 300 frames, so that a list can be cut to the
entries for which a decoder or an adapter has time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gristmill.models.speech.decode import checked
from gristmill.models.speech.lexicon import Lexicon
from gristmill.models.speech.units import WORD_BOUNDARY
from gristmill.shards.errors import UserError

FLOOR = -60.0  # nats
_PRICE = 4.0  # nats: of an entry
_LEAST = -1000.0  # nats: of a probability that is 0


class Spotted(NamedTuple):
    """How well entries (n,) are heard: nats of 0 or below, and the first and last frame of their best windows.

    What scores less than was asked for has -inf and the frames -1.
    """

    scores: np.ndarray
    first: np.ndarray
    last: np.ndarray


def spot(
    log_probs: np.ndarray,
    spellings: np.ndarray,
    of: np.ndarray,
    *,
    boundary: int | None = None,
    floor: float = FLOOR,
) -> Spotted:
    """Return how well entries are heard in log-probabilities (T, V): the scores, first and last frames of each (n,).

    ``spellings`` (m, longest) are in units with 0 behind each, of the entries ``of`` (m,), as a lexicon has them; the
    best spelling of an entry counts. Between an entry's units there may be blanks, and the unit ``boundary``, as for an
    entry that is heard as two words. A window is from the first frame of the entry's first unit to the last of its
    last. Entries below ``floor`` are not looked for to the end, so a higher one is faster; the others' scores are
    exact.

    Raises:
        UserError: ``log_probs`` is not (T, V), or spellings have other units.

    Example:
        >>> log_probs = np.log(np.full((5, 4), 0.05) + 0.8 * np.eye(4)[[3, 1, 0, 2, 3]])
        >>> found = spot(log_probs, np.array([[1, 2], [2, 1], [3, 0]]), np.array([0, 1, 2]))
        >>> found.scores.round(1).tolist(), found.first.tolist(), found.last.tolist()
        ([0.0, -2.8, 0.0], [1, 0, 0], [3, 1, 0])
    """
    from gristmill.models.speech import spotting_kernels  # compiles

    log_probs, spellings = checked(log_probs), np.asarray(spellings, np.int32)
    if len(spellings) and not 0 <= spellings.min() <= spellings.max() < log_probs.shape[1]:
        known = log_probs.shape[1] - 1
        raise UserError(f"list: spelled in units up to {spellings.max()}; expected at most {known}, the recogniser's")
    lost, blank = _scores(log_probs, boundary)
    order, ordered, lengths, shared = _sorted(spellings, np.zeros(len(spellings), np.int64))
    found = Spotted(*spotting_kernels.spot(lost, blank, ordered, lengths, shared, float(floor)))
    return _best_of_each(found, np.asarray(of)[order])


def _sorted(spellings: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the order of spellings in which those of a group (n,) that begin alike lie together, and more in it.

    These are the spellings, their lengths, and how many first units each shares with the one before.
    """
    order = np.lexsort([*spellings.T[::-1], groups])  # the last key sorts first
    ordered = np.ascontiguousarray(spellings[order])
    same = (ordered[1:] == ordered[:-1]) & (ordered[1:] > 0)
    shared = np.zeros(len(ordered), np.int64)
    shared[1:] = np.cumprod(same, axis=1).sum(axis=1)
    return order, ordered, (ordered > 0).sum(axis=1), shared


def _scores(log_probs: np.ndarray, boundary: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return log-probabilities (V, T) less those of each frame's best unit, and those of no unit (T,)."""
    kept = np.maximum(log_probs, _LEAST)
    lost = np.ascontiguousarray((kept - kept.max(axis=1, keepdims=True)).T)
    return lost, lost[0] if boundary is None else np.maximum(lost[0], lost[boundary])


def _best_of_each(found: Spotted, of: np.ndarray) -> Spotted:
    """Return the best of the spellings of each entry."""
    best = np.lexsort([-found.scores, of])
    first = np.flatnonzero(np.diff(of[best], prepend=-1))
    count = int(of.max()) + 1 if len(of) else 0
    out = Spotted(np.full(count, -np.inf), np.full(count, -1, np.int32), np.full(count, -1, np.int32))
    for given, kept in zip(found, out, strict=True):
        kept[of[best[first]]] = given[best[first]]
    return out


def nearest_heard(log_probs: np.ndarray, listed: Lexicon, most: int) -> np.ndarray:
    """Return which words of a list are heard best in log-probabilities (T, V), best first: ``most`` of them or fewer.

    Words are compared by their scores (:func:`spot`), less a price that keeps short ones back, as they are part of many
    words, for each unit of the spelling, as long ones lose more. Phonemes with a word boundary have to be heard between
    two of them, which the utterance's ends are too, and may have some within. The search is exact; words for which
    there are too few frames are left out.

    Raises:
        UserError: ``log_probs`` is of other units than the list.

    Example:
        >>> from gristmill.models.speech.units import characters
        >>> units = characters(["no", "to"])
        >>> log_probs = np.log(np.full((4, 5), 0.05) + 0.75 * np.eye(5)[[2, 0, 3, 3]])
        >>> listed = Lexicon.spelled(["to", "not", "no", "on"], units)
        >>> [listed.words[place] for place in nearest_heard(log_probs, listed, 2)]
        ['no', 'not']
    """
    from gristmill.models.speech import spotting_kernels  # compiles

    log_probs = checked(log_probs)
    if log_probs.shape[1] != len(listed.units):
        raise UserError(f"list: spelled in {len(listed.units)} units; expected the recogniser's, {log_probs.shape[1]}")
    tokens, spellings = listed.units.tokens, listed.spellings
    units = (spellings > 0).sum(axis=1)
    boundary = tokens.index(WORD_BOUNDARY) if WORD_BOUNDARY in tokens else None
    if boundary is not None:
        ends = np.full((1, len(tokens)), _LEAST)
        ends[0, boundary] = 0.0
        log_probs = np.concatenate([ends, log_probs, ends])
        spellings = np.pad(spellings, ((0, 0), (1, 1)))
        spellings[:, 0] = spellings[np.arange(len(units)), units + 1] = boundary
    order, ordered, lengths, shared = _sorted(spellings, units)  # short ones first: good ones bound the search
    return spotting_kernels.nearest(
        *_scores(log_probs, boundary), ordered, lengths, shared, listed.of[order], units[order], _PRICE, max(most, 0)
    )
