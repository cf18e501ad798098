"""How fast the work of a run goes, and when that is told: rates, the time to go, durations in words."""

from __future__ import annotations

import time
from collections.abc import Mapping

from gristmill.shards.receipt import Receipt

SOONEST = 5.0  # seconds between two lines about something that goes on, at first
SHARE = 0.2  # of the time that it went on before, later


def is_due(begun: float, told: float, most: float) -> bool:
    """Return whether what goes on since ``begun``, and was told of last at ``told``, by the monotonic clock, is told
    of again: soon at first, as it may be over soon, then less and less often, up to every ``most`` seconds.

    Example:
        >>> now = time.monotonic()
        >>> is_due(now - 6, now - 6, 60), is_due(now - 106, now - 6, 60), is_due(now - 106, now - 21, 60)
        (True, False, True)
    """
    return time.monotonic() - told >= min(most, max(SOONEST, SHARE * (told - begun)))


class Pace:
    """The rate of a step, over the shards that this run made itself."""

    def __init__(self, shards: int, done: int, records: int) -> None:
        self.shards, self.done, self.records = shards, done, records
        self.fresh = self.seen = self.kept_out = 0
        self.begun = self.logged = time.monotonic()

    def advance(self, receipt: Receipt) -> None:
        """Count a shard."""
        self.done, self.fresh, self.seen = self.done + 1, self.fresh + 1, self.seen + receipt.records_in
        self.kept_out += receipt.rejected + receipt.quarantined

    @property
    def rate(self) -> float:
        """Records per second."""
        return self.seen / max(time.monotonic() - self.begun, 1e-6)

    @property
    def left(self) -> float | None:
        """Estimated seconds until the end; ``None`` before the first shard."""
        if not self.fresh:
            return None
        return (time.monotonic() - self.begun) / self.fresh * (self.shards - self.done)


class TrainingPace:
    """The rate of a training, over the steps of this run."""

    def __init__(self, metrics: Mapping[str, float]) -> None:
        self.begun = self.logged = time.monotonic()
        self.first = metrics["step"]
        self.take(metrics)

    def take(self, metrics: Mapping[str, float]) -> None:
        """Take a point of the curves."""
        self.done, self.steps, self.loss = metrics["step"] + 1, metrics.get("steps"), metrics.get("loss")
        spent = time.monotonic() - self.begun
        self.rate = (metrics["step"] - self.first) / spent if metrics["step"] > self.first and spent > 0 else None

    @property
    def left(self) -> float | None:
        """Estimated seconds until the end; ``None`` before the second point."""
        return (self.steps - self.done) / self.rate if self.steps and self.rate else None

    def parts(self) -> tuple[str, str, str]:
        """Return the step, the loss and rate, and the time to go, in words."""
        return training_parts(self.done, self.steps, self.loss, self.rate, self.left)


def training_parts(
    done: float, steps: float | None, loss: float | None, rate: float | None, left: float | None
) -> tuple[str, str, str]:
    """Return the step of a training, its loss and rate, and the time to go, in words; what is unknown is left out.

    Example:
        >>> training_parts(1200, 3000, 1.234, 4.1, 439.0)
        ('step 1,200 of 3,000', 'loss 1.23, 4.1 steps/s', '7 min 19 s to go')
    """
    of = f" of {steps:,.0f}" if steps else ""
    known = [f"loss {loss:.3g}"] if loss is not None else []
    known += [f"{rate:.1f} steps/s" if rate >= 1 else f"{1 / rate:.1f} s/step"] if rate else []
    return f"step {done:,.0f}{of}", ", ".join(known), f"{clock(left)} to go" if left is not None else ""


def clock(seconds: float | None) -> str:
    """Return a duration in readable form."""
    if seconds is None:
        return "unknown"
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
