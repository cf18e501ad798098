"""Logistic regression by scikit-learn, whose fits are the same on every machine of a level."""

from __future__ import annotations

import warnings

import numpy as np
from scipy import sparse


def logistic(
    rows: sparse.csr_array,
    labels: np.ndarray,
    c: float,
    solver: str,
    iterations: int,
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Fit a logistic regression on the rows (requests, columns) and their labels.

    Returns (weights (columns, classes), bias (classes,), iterations); of two classes only the second has weights.
    ``c`` is the inverse regularisation, ``weights`` (requests,) are those of the rows. Without columns the bias alone
    is fitted: the few requests of a small corpus may share no n-gram. The same rows give the same bytes: it runs in
    one thread, as the split of a sum over threads changes its last bits.
    """
    from sklearn.exceptions import ConvergenceWarning  # slow to import, and applying a model needs none of it
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    columns = rows.shape[1]
    if not columns:
        rows = sparse.csr_array((len(labels), 1))  # scikit-learn expects a feature; a constant 0 changes nothing
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of iterations shows it
        fitted = LogisticRegression(C=c, solver=solver, max_iter=iterations, random_state=0).fit(
            sparse.csr_matrix(rows), labels, weights
        )
    found, bias = fitted.coef_.T[:columns], fitted.intercept_
    if found.shape[1] == 1:
        found = np.concatenate([np.zeros_like(found), found], axis=1)
        bias = np.concatenate([np.zeros_like(bias), bias])
    return found, bias, int(np.max(fitted.n_iter_))


def balanced(own: np.ndarray, others: int) -> np.ndarray:
    """Return the weights ``own`` of some rows, scaled, and of ``others``, 1 each: both kinds have the same total."""
    return np.concatenate([own * (others / own.sum()), np.ones(others)])
