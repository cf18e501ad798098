"""Whether a turn failed: the probability of friction, from the turn and what the user did next.

A calibrated logistic regression, fitted on the turns of which it is known whether they succeeded. What is not known
of a turn (its score, its time, whether the user spoke into the response) has a feature that says so. Of logs in which
hardly any outcome is known, a model with weights of its own (:func:`prior_model`) serves until there are some.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from gristmill.models.sessions.calibrated import CalibratedModel

MODEL = "friction.json"
FEATURES = (
    "score",
    "score_unknown",
    "gap",  # the score less the probability of the best alternative
    "gap_unknown",
    "last",  # no turn follows
    "paraphrase",  # the probability that the next turn means the same
    "paraphrase_other",  # the same, if the next turn is read otherwise
    "paraphrase_soon",  # the same, falling with the seconds between
    "soon",  # 1 at once, 1/2 after half a minute
    "time_unknown",
    "barge_in",
    "barge_in_unknown",
    "same_reading",  # the next turn is read as this one is
    "same_intent",
    "words",
    "slots",
)
_HALF = 30.0  # seconds
_PRIOR = {"paraphrase": 1.0, "paraphrase_other": 3.0, "paraphrase_soon": 1.0, "barge_in": 1.0, "score": -2.0}
_PRIOR_BIAS = -1.0


def friction_features(turn: Mapping[str, Any]) -> np.ndarray:
    """Return the features of a turn, (features,).

    ``turn`` has its ``tokens``, ``domain``, ``intent``, ``slots``, ``score``, ``alternatives`` and ``barge_in``, and
    of the turn after it ``next_tokens`` (null: there is none), ``next_domain``, ``next_intent``, ``next_slots``, the
    ``seconds`` between the two, and the probability ``paraphrase`` that both mean the same. All but ``tokens`` may be
    null.

    Example:
        >>> turn = {"tokens": ["lights"], "next_tokens": ["lights", "on"], "paraphrase": 0.8, "seconds": 30.0}
        >>> made = dict(zip(FEATURES, friction_features(turn)))
        >>> made["paraphrase_soon"], made["score_unknown"], made["last"]
        (0.4, 1.0, 0.0)
    """
    get = turn.get
    score, seconds, barge, follows = get("score"), get("seconds"), get("barge_in"), get("next_tokens") is not None
    best = (get("alternatives") or [None])[0]
    other = None if best is None else _probability(best)
    paraphrase = float(get("paraphrase") or 0.0) if follows else 0.0
    soon = 0.0 if seconds is None else 1 / (1 + max(0.0, seconds) / _HALF)
    same = follows and reading(turn) == reading(turn, "next_")
    intent = follows and (get("domain"), get("intent")) == (get("next_domain"), get("next_intent"))
    found = [
        0.5 if score is None else float(score),
        float(score is None),
        0.0 if score is None or other is None else float(score) - other,
        float(score is None or other is None),
        float(not follows),
        paraphrase,
        paraphrase * (not same),
        paraphrase * soon,
        soon,
        float(seconds is None),
        float(bool(barge)),
        float(barge is None),
        float(same),
        float(intent),
        math.log1p(len(get("tokens") or ())),
        math.log1p(len(get("slots") or ())),
    ]
    return np.array(found)


def reading(turn: Mapping[str, Any], prefix: str = "") -> tuple[Any, ...]:
    """Return a turn's interpretation in a form in which equal ones are equal: domain, intent, slots by name and value.

    Example:
        >>> reading({"domain": "light", "intent": "on", "slots": [{"name": "area", "value": "Hall"}]})
        ('light', 'on', (('area', 'hall'),))
    """
    slots = turn.get(f"{prefix}slots") or ()
    values = sorted((slot["name"], (slot["value"] or "").lower()) for slot in slots)
    return turn.get(f"{prefix}domain"), turn.get(f"{prefix}intent"), tuple(values)


def prior_model() -> CalibratedModel:
    """Return the model with weights that are set, not fitted: a rephrase that is read otherwise tells of a failure."""
    weights = np.array([_PRIOR.get(name, 0.0) for name in FEATURES])
    count = len(FEATURES)
    return CalibratedModel(FEATURES, False, np.zeros(count), np.ones(count), weights, _PRIOR_BIAS)


def _probability(hypothesis: Mapping[str, Any]) -> float | None:
    parts = [hypothesis.get(name) for name in ("domain_logprob", "intent_logprob", "slots_logprob")]
    known = [part for part in parts if part is not None]
    return math.exp(min(0.0, sum(known))) if known else None
