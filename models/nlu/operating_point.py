"""The threshold from which a recogniser accepts a request, chosen on few held-out scores.

The F1 on traffic of which a share ``prior`` is of the function is 2 p r / (p r + (1 - p) a + p), with the recall r on
the function's requests and the rate a at which others are accepted. Of others there are many, and their rate is
counted. Of the function there are few: a step function of ten or twenty scores has its best threshold by chance, so the
recall is that of their kernel density estimate, with Silverman's bandwidth ("Density Estimation for Statistics and Data
Analysis", 1986, eq. 3.28).
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr


def threshold(own: np.ndarray, others: np.ndarray, prior: float) -> float:
    """Return the threshold with the best F1, from held-out log-odds of the function's requests (N,) and others (M,).

    ``prior`` is the share of the function's requests in traffic. With fewer than two requests of one kind it is 0, at
    which the model itself finds both equally likely.

    Example:
        >>> own, others = np.array([0.5, 1.0, 2.0, 1.5]), np.array([-4.0, -3.0, -5.0, -2.0, -4.5])
        >>> -2.0 < threshold(own, others, 0.1) < 0.5
        True
    """
    if len(own) < 2 or len(others) < 2:
        return 0.0
    own, others = np.sort(np.asarray(own, np.float64)), np.sort(np.asarray(others, np.float64))
    width = max(1.06 * float(own.std(ddof=1)) * len(own) ** -0.2, 1e-6)
    found = np.unique(np.concatenate([own, others[-max(2, len(others) // 10) :]]))
    tried = np.concatenate([found, (found[1:] + found[:-1]) / 2])
    recall = ndtr((own[None] - tried[:, None]) / width).mean(1)
    accepted = 1 - np.searchsorted(others, tried) / len(others)
    f1 = 2 * prior * recall / (prior * recall + (1 - prior) * accepted + prior)
    return float(tried[np.argmax(f1)])
