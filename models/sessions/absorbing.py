"""An absorbing Markov chain of reformulations, and through which node a chain that starts at another one succeeds.

Ponnusamy et al., "Feedback-based self-learning in large-scale conversational AI agents" (AAAI 2020). The transient
states are nodes i, of which users go on to others (Q), succeed (r+) or fail. With N = (I - Q)^-1, the chain that
starts at i is absorbed in success *through* j with the probability s(i, j) = N_ij r+_j (Kemeny and Snell, Finite Markov
Chains, 1960).

Components are solved apart. Rows of N are made for the sources that are asked for, never N of a large component: small
components are inverted, in stacks; larger ones are factorised; and in those that are larger still chains are followed
from their source as far as they matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import breadth_first_order
from scipy.sparse.linalg import splu

SMALL = 32  # nodes of a component that is inverted
_STACK = 1 << 20  # numbers of the matrices that are inverted at once
_COLUMNS = 64  # sources that are solved for at once
_STEPS = 1000  # that a chain is followed, at most


@dataclass(frozen=True)
class BestTargets:
    """The best other node of each source.

    ``score`` is s(source, target), ``own`` s(source, source), and ``dropped`` bounds what either lacks. ``target`` is
    -1 of a source through no other node of which a chain succeeds.
    """

    target: np.ndarray  # (sources,) int64
    score: np.ndarray  # (sources,) float64
    own: np.ndarray  # (sources,) float64
    dropped: np.ndarray  # (sources,) float64


def probabilities(
    steps: sparse.csr_array, succeeded: np.ndarray, total: np.ndarray, smoothing: float
) -> tuple[sparse.csr_array, np.ndarray]:
    """Return Q (nodes, nodes) and r+ (nodes,) of counts.

    Args:
        steps: How many turns of a node were followed by one of another, (nodes, nodes).
        succeeded: How many ended a chain with success, (nodes,).
        total: How many turns of a node went on or ended, (nodes,): what is in neither of the others has failed, or has
            gone where it is not followed.
        smoothing: Failed turns that are added to each node from which no chain ever ends, so that I - Q is regular.

    Example:
        >>> steps = sparse.csr_array([[0.0, 3.0], [0.0, 0.0]])
        >>> q, success = probabilities(steps, np.array([1, 2]), np.array([4, 2]), 0.5)
        >>> q.toarray().tolist(), success.tolist()
        ([[0.0, 0.75], [0.0, 0.0]], [0.25, 1.0])
    """
    gone = np.asarray(steps.sum(1)).ravel()
    whole = np.where(_ending(steps, total > gone), np.maximum(total, gone), gone + smoothing).astype(np.float64)
    return sparse.csr_array(sparse.diags_array(1 / whole) @ steps), succeeded / whole


def _ending(steps: sparse.csr_array, ends: np.ndarray) -> np.ndarray:
    """Return of which nodes chains end, there or further on, by where they do: (nodes,)."""
    size, leaving = len(ends), np.flatnonzero(ends)
    back = steps.tocoo()
    begin, end = np.append(back.col, np.full(len(leaving), size)), np.append(back.row, leaving)
    graph = sparse.csr_array((np.ones(len(begin)), (begin, end)), shape=(size + 1, size + 1))
    found = np.zeros(size + 1, bool)
    found[breadth_first_order(graph, size, return_predecessors=False)] = True
    return found[:size]


def best_targets(
    q: sparse.csr_array,
    success: np.ndarray,
    components: np.ndarray,
    sources: np.ndarray,
    exact: int = 1000,
    pruned: float = 1e-5,
) -> BestTargets:
    """Return the best other node of each source; of equal ones, the first.

    Args:
        q: Transition probabilities, (nodes, nodes).
        success: r+, (nodes,).
        components: The number of each node's component, (nodes,), in ascending order: nodes of one are neighbours.
        sources: Nodes, (sources,) in ascending order.
        exact: Nodes of a component that is solved exactly; in a larger one chains are followed.
        pruned: The probability that a chain comes to a node and goes on from there, below which it is not followed on.

    Example:
        >>> q = sparse.csr_array([[0.0, 0.75], [0.0, 0.0]])
        >>> found = best_targets(q, np.array([0.25, 1.0]), np.array([0, 0]), np.array([0]))
        >>> found.target.tolist(), found.score.tolist(), found.own.tolist()
        ([1], [0.75], [0.25])
    """
    found = BestTargets(
        np.full(len(sources), -1), np.zeros(len(sources)), np.zeros(len(sources)), np.zeros(len(sources))
    )
    starts = np.flatnonzero(np.diff(components, prepend=-1))
    sizes = np.diff(starts, append=len(components))
    of = np.searchsorted(starts, sources, "right") - 1  # the component of each source
    for size in np.unique(sizes[of]):
        rows = np.flatnonzero(sizes[of] == size)
        if size <= SMALL:
            _invert(q, success, starts, sources, of, rows, int(size), found)
            continue
        for one in np.unique(of[rows]):
            begin, mine = int(starts[one]), rows[of[rows] == one]
            inside = slice(begin, begin + int(size))
            part = sparse.csr_array(q[inside, inside])
            solve = _factorised if size <= exact else partial(_followed, pruned=pruned)
            for some, visits, dropped in solve(part, sources[mine] - begin):
                choose = _choose if isinstance(visits, np.ndarray) else _choose_sparse
                choose(found, mine[some], sources[mine[some]] - begin, visits * success[inside], begin)
                found.dropped[mine[some]] = dropped
    return found


def _invert(
    q: sparse.csr_array,
    success: np.ndarray,
    starts: np.ndarray,
    sources: np.ndarray,
    of: np.ndarray,
    rows: np.ndarray,
    size: int,
    found: BestTargets,
) -> None:
    """Set the best targets of sources in components of one size, by stacks of inverses: each by itself."""
    parts, place = np.unique(of[rows], return_inverse=True)
    each = max(1, _STACK // size**2)
    for first in range(0, len(parts), each):
        own = starts[parts[first : first + each]]
        nodes = own[:, None] + np.arange(size)
        matrices = np.zeros((len(own), size, size))
        part = q[nodes.ravel()].tocoo()
        stack, row = np.divmod(part.row, size)
        matrices[stack, row, part.col - own[stack]] = part.data
        visits = np.linalg.inv(np.eye(size) - matrices)
        mine = (place >= first) & (place < first + each)
        at = place[mine] - first
        begin = own[at]
        local = sources[rows[mine]] - begin
        _choose(found, rows[mine], local, visits[at, local] * success[nodes][at], begin)


def _factorised(part: sparse.csr_array, sources: np.ndarray) -> Iterator[tuple[slice, np.ndarray, float]]:
    """Yield rows of (I - Q)^-1 by a sparse factorisation, in blocks."""
    size = part.shape[0]
    factors = splu(sparse.csc_matrix((sparse.eye_array(size) - part).T))
    for first in range(0, len(sources), _COLUMNS):
        some = sources[first : first + _COLUMNS]
        given = np.zeros((size, len(some)))
        given[some, np.arange(len(some))] = 1.0
        yield slice(first, first + len(some)), factors.solve(given).T, 0.0


def _followed(
    part: sparse.csr_array, sources: np.ndarray, pruned: float
) -> Iterator[tuple[slice, sparse.csr_array, np.ndarray]]:
    """Yield rows of the sum of Q^k, in blocks: where chains are, a step at a time. What is not followed is summed for
    each source, and bounds the error of its scores."""
    goes_on = np.asarray(part.sum(1)).ravel()
    for first in range(0, len(sources), _COLUMNS):
        some = sources[first : first + _COLUMNS]
        shape = (len(some), part.shape[0])
        at = sparse.csr_array((np.ones(len(some)), some, np.arange(len(some) + 1)), shape=shape)
        visits, dropped = sparse.csr_array(shape), np.zeros(len(some))
        for step in range(_STEPS + 1):
            visits = visits + at
            on = at.data * goes_on[at.indices]
            low = on < (pruned if step < _STEPS else np.inf)
            dropped += np.bincount(at.tocoo().row[low], on[low], len(some))
            at.data[low] = 0.0
            at.eliminate_zeros()
            if not at.nnz:
                break
            at = sparse.csr_array(at @ part)
        visits.sort_indices()
        yield slice(first, first + len(some)), visits, dropped


def _choose(
    found: BestTargets, rows: np.ndarray, local: np.ndarray, scores: np.ndarray, begin: np.ndarray | int
) -> None:
    """Set the best targets of some sources by their scores (sources, nodes of the component)."""
    each = np.arange(len(rows))
    found.own[rows] = scores[each, local]
    scores[each, local] = -1.0
    best = scores.argmax(1)
    score = scores[each, best]
    found.target[rows] = np.where(score > 0, best + begin, -1)
    found.score[rows] = np.maximum(score, 0.0)


def _choose_sparse(found: BestTargets, rows: np.ndarray, local: np.ndarray, scores: sparse.sparray, begin: int) -> None:
    """Do the same by sparse scores."""
    scores = sparse.csr_array(scores)  # a product has no rows to slice
    for place, (row, own) in enumerate(zip(rows.tolist(), local.tolist(), strict=True)):
        reached = slice(*scores.indptr[place : place + 2])
        nodes, values = scores.indices[reached], scores.data[reached]
        mine = nodes == own
        found.own[row] = values[mine].sum()
        values = np.where(mine, -1.0, values)
        best = int(values.argmax())
        if values[best] > 0:
            found.target[row], found.score[row] = nodes[best] + begin, values[best]
