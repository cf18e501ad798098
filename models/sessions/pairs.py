"""Which turns of a session may be two attempts at the same: those close to each other in turns and in time.

Turns are given in their order, each once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import Field

from gristmill.shards.settings import Settings

Turn = Mapping[str, Any]


class WindowSettings(Settings):
    """How close two turns of a session are, to be a candidate pair.

    The window is one apart from those of chains (``rewrites.chains.window``) and of goals (``goals.pairs.seconds``): a
    model judges whether the two of a pair mean the same, so that a wider one costs work, and is no claim by itself.
    """

    seconds: float = Field(60.0, gt=0)
    """Seconds between the two at most; where a time is not known, ``turns`` alone decides."""
    turns: int = Field(2, ge=1)
    """How many turns later the second comes at most."""


def followed(turns: Iterable[Turn]) -> Iterator[tuple[Turn, Turn | None]]:
    """Yield each turn with the one after it, the last with ``None``."""
    before = None
    for turn in turns:
        if before is not None:
            yield before, turn
        before = turn
    if before is not None:
        yield before, None


def candidate_pairs(turns: Iterable[Turn], window: WindowSettings) -> Iterator[tuple[int, Turn, Turn]]:
    """Yield (turns between them, earlier, later) of the pairs in the window, by the later turn.

    Turns whose interpretation is of a rewrite of ours are in no pair: they would feed our rewrites to themselves.

    Example:
        >>> turns = [{"id": name, "time": time} for name, time in (("a", 0.0), ("b", 20.0), ("c", 70.0))]
        >>> [(one["id"], other["id"]) for _, one, other in candidate_pairs(turns, WindowSettings())]
        [('a', 'b'), ('b', 'c')]
    """
    before: deque[Turn] = deque(maxlen=window.turns)
    for turn in turns:
        for away, earlier in enumerate(reversed(before), 1):
            between = seconds_between(earlier, turn)
            near = between is None or 0 <= between <= window.seconds
            if near and not (earlier.get("rewritten") or turn.get("rewritten")):
                yield away, earlier, turn
        before.append(turn)


def seconds_between(earlier: Turn, later: Turn) -> float | None:
    """Return the seconds between two turns, or ``None`` where a time is not known."""
    if earlier.get("time") is None or later.get("time") is None:
        return None
    return float(later["time"]) - float(earlier["time"])
