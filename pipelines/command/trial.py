"""What a recipe is tried on by ``gristmill plan``: a few rows of each source, and a few steps of each training."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa


class Spread:
    """Keeps about ``wanted`` rows spread over all tables added, with at most twice as many in memory.

    It keeps every stride-th row, and doubles the stride when they become too many.
    """

    def __init__(self, wanted: int) -> None:
        self.wanted, self.stride = wanted, 1
        self.rows = self.tables = 0
        self.bytes = 0.0
        self._kept: list[pa.Table] = []

    def add(self, table: pa.Table) -> None:
        """Add a table and keep some of its rows."""
        places = np.arange(-self.rows % self.stride, table.num_rows, self.stride)
        self._kept.append(table.take(places))
        self.rows, self.tables, self.bytes = self.rows + table.num_rows, self.tables + 1, self.bytes + table.nbytes
        while sum(part.num_rows for part in self._kept) > 2 * self.wanted:
            whole = pa.concat_tables(self._kept)
            self._kept, self.stride = [whole.take(np.arange(0, whole.num_rows, 2))], 2 * self.stride

    def kept(self) -> list[pa.Table]:
        """Return the kept rows, at most ``wanted``, as one table in order; an empty list if no table was added."""
        if not self._kept:
            return []
        whole = pa.concat_tables(self._kept)
        places = np.linspace(0, whole.num_rows - 1, min(self.wanted, whole.num_rows)).round().astype(int)
        return [whole.take(places)]


class Trial:
    """The single rank of a trial training: records the times of the steps in each phase.

    A loop with optimiser steps stops each phase after ``trial_steps`` and reports the phase's full number
    (``phase_steps``); any other loop runs to its end, and sees by ``trial_steps`` that models before it may not have.
    """

    rank = 0
    world_size = 1

    def __init__(self, trial_steps: int | None = 6) -> None:
        self.trial_steps = trial_steps
        self.at: dict[int, list[tuple[float, bool]]] = {}  # times, and whether held-out data were evaluated
        self.steps: dict[int, float] = {}

    def resume(self) -> None:
        """Return ``None``: a trial has no checkpoint."""

    def report(self, metrics: Mapping[str, Any], checkpoint: bytes | None = None) -> None:
        """Record the time of a step."""
        phase = int(metrics.get("phase", 0))
        self.at.setdefault(phase, []).append((time.perf_counter(), "dev_loss" in metrics))
        if "phase_steps" in metrics:
            self.steps[phase] = metrics["phase_steps"]

    @property
    def seconds(self) -> float | None:
        """Seconds of all phases extrapolated to their full steps; ``None`` if the loop ran to its end.

        The first step of a phase is left out as warm-up. Held-out data are evaluated at the end of each epoch, and once
        more at that of the trial.
        """
        if not self.steps:
            return None
        return sum(steps * _seconds_a_step(self.at[phase]) for phase, steps in self.steps.items())


def _seconds_a_step(at: Sequence[tuple[float, bool]]) -> float:
    """Return the mean seconds of a step, with its share of the evaluations, from the times of a few; 0 from one."""
    times = [(after - before, evaluated) for (before, _), (after, evaluated) in itertools.pairwise(at)]
    plain = [seconds for seconds, evaluated in times if not evaluated] or [seconds for seconds, _ in times]
    if not plain:
        return 0.0
    step = sum(plain) / len(plain)
    evaluations = [seconds - step for seconds, evaluated in times if evaluated]
    epoch = next((number for number, (_, evaluated) in enumerate(at, 1) if evaluated), len(at))
    if epoch == len(at) or not evaluations:
        return step  # an epoch is longer than the trial, and evaluations are a small part of it
    return step + max(0.0, sum(evaluations) / len(evaluations)) / epoch
