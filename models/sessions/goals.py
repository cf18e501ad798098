"""Association of goals in sessions: mutual information of a pair, its significance, and its direction.

A goal that follows another in many sessions is latent in it. How often two goals are expected together by chance is
told by all traffic: pointwise mutual information (Church and Hanks, Computational Linguistics 1990) is the logarithm of
how often they are, over that. It is large for rare pairs by chance, so a pair counts only with support and if Fisher's
exact test finds the goals dependent, at a false discovery rate over all pairs (Benjamini and Hochberg, JRSS B 1995).
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import numpy as np
from scipy.special import xlogy
from scipy.stats import binom, hypergeom


def pmi(pair: np.ndarray, first: np.ndarray, second: np.ndarray, sessions: int) -> np.ndarray:
    """Return the pointwise mutual information (n,) of pairs, in nats: log p(a, b) / (p(a) p(b)).

    ``pair`` (n,) are the sessions in which the second goal follows the first, ``first`` and ``second`` (n,) those with
    each goal, of ``sessions`` in all. A pair that never occurs has minus infinity.

    Example:
        >>> pmi(np.array([10]), np.array([20]), np.array([50]), 1000).round(3).tolist()  # expected by chance: 1
        [2.303]
    """
    with np.errstate(divide="ignore"):
        return np.log(pair) + np.log(sessions) - np.log(first) - np.log(second)


def normalised_pmi(pair: np.ndarray, first: np.ndarray, second: np.ndarray, sessions: int) -> np.ndarray:
    """Return the mutual information over the surprise of the pair, -1 to 1 (Bouma, GSCL 2009); arguments as
    :func:`pmi`.

    Unlike mutual information itself it is no larger for a rare pair than for a common one that always occurs together.

    Example:
        >>> normalised_pmi(np.array([20]), np.array([20]), np.array([20]), 1000).tolist()
        [1.0]
    """
    surprise = np.log(sessions) - np.log(np.maximum(pair, 1))
    # A pair of every session is no surprise, and tells nothing.
    found = np.where(pair > 0, pmi(np.maximum(pair, 1), first, second, sessions), -np.inf)
    return np.where(pair > 0, np.divide(found, surprise, out=np.zeros(len(surprise)), where=surprise > 0), -1.0)


def log_likelihood_ratio(pair: np.ndarray, first: np.ndarray, second: np.ndarray, sessions: int) -> np.ndarray:
    """Return Dunning's G2 (n,) of each pair (Computational Linguistics 1993): twice the log-likelihood ratio.

    Arguments are as of :func:`pmi`. It is large for goals that are together more or less often than by chance.

    Example:
        >>> log_likelihood_ratio(np.array([10, 1]), np.array([20, 20]), np.array([50, 50]), 1000).round(1).tolist()
        [35.1, 0.0]
    """
    cells = np.stack([pair, first - pair, second - pair, sessions - first - second + pair]).astype(np.float64)
    rows, columns = np.stack([first, sessions - first]) / sessions, np.stack([second, sessions - second])
    expected = np.stack([rows[0] * columns[0], rows[0] * columns[1], rows[1] * columns[0], rows[1] * columns[1]])
    return 2 * (xlogy(cells, cells) - xlogy(cells, np.where(cells > 0, expected, 1.0))).sum(0).clip(min=0)


def association_p(pair: np.ndarray, first: np.ndarray, second: np.ndarray, sessions: int) -> np.ndarray:
    """Return the probability (n,) of so many sessions with a pair or more if its goals were independent.

    That is Fisher's exact test against more than by chance; arguments are as of :func:`pmi`.

    Example:
        >>> association_p(np.array([10, 1]), np.array([20, 20]), np.array([50, 50]), 1000).round(3).tolist()
        [0.0, 0.645]
    """
    return hypergeom.sf(pair - 1, sessions, first, second)


def direction_p(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """Return the probability (n,) of so many sessions with one order or more if both orders were equally likely.

    Example:
        >>> direction_p(np.array([10, 5]), np.array([0, 5])).round(3).tolist()
        [0.001, 0.623]
    """
    return binom.sf(forward - 1, forward + backward, 0.5)


def discovery_cutoff(p: np.ndarray, rate: float) -> float:
    """Return the largest p-value that is a discovery at a false discovery rate; -1 where none is.

    Example:
        >>> discovery_cutoff(np.array([0.001, 0.02, 0.04, 0.9]), 0.05)
        0.02
    """
    ordered = np.sort(p)
    found = np.flatnonzero(ordered <= rate * np.arange(1, len(ordered) + 1) / max(1, len(ordered)))
    return float(ordered[found[-1]]) if len(found) else -1.0


def overlap(left: AbstractSet[str], right: AbstractSet[str]) -> float:
    """Return the share of two sets that both have; 0 of two empty ones.

    Example:
        >>> overlap({"play", "jazz"}, {"play", "some", "jazz", "music"})
        0.5
    """
    return len(left & right) / len(left | right) if left or right else 0.0


def pieces(words: Sequence[str]) -> frozenset[str]:
    """Return what texts are compared by: their words, and groups of three letters, as words are misheard.

    Example:
        >>> sorted(pieces(["go"]))
        [' go', 'go ', 'word:go']
    """
    text = f" {' '.join(words)} "
    return frozenset(f"word:{word}" for word in words) | {text[i : i + 3] for i in range(len(text) - 2)}


def precision_at(ranked: Sequence[tuple[str, str]], planted: AbstractSet[tuple[str, str]], n: int) -> float:
    """Return the share of the first ``n`` pairs that were planted.

    Of fewer pairs it is the share of those there are; 0 of none.

    Example:
        >>> precision_at([("a", "b"), ("c", "d"), ("e", "f")], {("a", "b")}, 2)
        0.5
    """
    first = ranked[:n]
    return sum(pair in planted for pair in first) / len(first) if first else 0.0
