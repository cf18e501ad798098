"""What became of a reading when others said the same: evidence on whether a turn failed that no single session has.

A recogniser reads the same words in the same way, so that what is known of the other turns with these words and this
reading, or with this reading of other words, tells of this one too. A turn's own outcome is left out of the counts,
or a model would only learn to repeat it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

COUNTS = ("turns", "worked", "failed", "log_odds")  # turns, known outcomes, and the sum of the turns' own log-odds
SAID, MEANT = "said_", "meant_"  # prefixes: of the same words and reading, and of the same reading
FEATURES = (
    "own",  # the log-odds of failure by the turn itself
    *(prefix + name for prefix in (SAID, MEANT) for name in ("turns", "worked", "failed", "rate", "log_odds")),
)
_SMOOTHING = 1.0


def count_turn(log_odds: float, succeeded: bool | None) -> dict[str, float]:
    """Return a turn's own contribution to the counts.

    Example:
        >>> count_turn(-1.0, True)
        {'turns': 1.0, 'worked': 1.0, 'failed': 0.0, 'log_odds': -1.0}
    """
    worked, failed = (0.0 if succeeded is None else float(succeeded == kind) for kind in (True, False))
    return {"turns": 1.0, "worked": worked, "failed": failed, "log_odds": log_odds}


def outcome_features(log_odds: float, succeeded: bool | None, counts: Mapping[str, Any]) -> np.ndarray:
    """Return the features of a turn, (features,), by the ``counts`` that it is in (``said_turns``, ..., ``meant_...``).

    Example:
        >>> counts = {f"{kind}_{name}": 3.0 for kind in ("said", "meant") for name in COUNTS}
        >>> dict(zip(FEATURES, outcome_features(0.0, True, counts)))["said_worked"] == np.log(3)
        True
    """
    own = count_turn(log_odds, succeeded)
    found = [log_odds]
    for prefix in (SAID, MEANT):
        turns, worked, failed, total = (float(counts[prefix + name] or 0.0) - own[name] for name in COUNTS)
        turns, worked, failed = (max(0.0, one) for one in (turns, worked, failed))
        rate = math.log((failed + _SMOOTHING) / (worked + _SMOOTHING))
        found += [math.log1p(turns), math.log1p(worked), math.log1p(failed), rate, total / (turns + _SMOOTHING)]
    return np.array(found)


def with_outcome(log_odds: float, succeeded: bool | None, mistaken: float) -> float:
    """Return the probability of failure after a turn's own outcome is seen, of which a share ``mistaken`` is wrong.

    Example:
        >>> round(with_outcome(0.0, True, 0.05), 3), round(with_outcome(0.0, None, 0.05), 3)
        (0.05, 0.5)
    """
    if succeeded is not None:
        log_odds += math.log(mistaken / (1 - mistaken)) * (1 if succeeded else -1)
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, log_odds))))
