"""The whole run, for ``gristmill status``: how much of it is done, of how much, and the time to go."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gristmill.pipelines.agenda import about
from gristmill.pipelines.command.planfile import EVERY, estimates_of
from gristmill.pipelines.forecast import Effort, Forecast, forecast, priced
from gristmill.pipelines.graph import DONE, TO_DO, UNDER_WAY
from gristmill.pipelines.outline import OutlineNode, effort
from gristmill.pipelines.report.tables import listed
from gristmill.shards.store import join

_FINISHED = ("sealed", "artifact", "cleaned")  # states of results that are there
_NAMED = 4  # of those whose time is unknown


@dataclass(frozen=True)
class SetStatus:
    """The progress of one set."""

    name: str
    url: str
    state: str  # sealed, under way, artifact, training, cleaned, unreadable
    done: int = 0  # shards of the index, without re-runs of quarantined records
    total: int | None = None
    rows: int = 0
    rejected: int = 0
    quarantined: int = 0
    seconds: float = 0.0  # of work, over all workers
    last: float | None = None  # Unix time of the newest commit
    records: int = 0  # in committed shards
    planned: int | None = None  # records in all shards
    rate: float | None = None  # recent records per second; None without recent commits
    left: float | None = None  # seconds until the end, at that rate
    fault: str = ""  # of what is unreadable
    used: bool = False  # of what was cleaned: by the newest finished run, to which it counts
    loss: float | None = None  # of a training, whose steps are ``done`` of ``total`` and whose rate is in steps


@dataclass(frozen=True)
class WholeRun:
    """How far a run is, by its plan."""

    forecast: Forecast = Forecast()
    done: int = 0  # finished sets, artifacts and models
    total: int | None = None  # that the run makes, as far as its plan is known
    is_priced: bool = False  # by the estimate of ``gristmill plan``
    may_grow: bool = False  # whether the recipe may declare more

    @property
    def _unlike(self) -> str:
        names = list(self.forecast.unlike)
        return listed(names if len(names) <= _NAMED else [*names[:_NAMED], f"{len(names) - _NAMED} others"])

    def line(self) -> str:
        """Return it in words, as a line of its own.

        Example:
            >>> WholeRun(Forecast(0.25, 600.0), 3, 12, may_grow=True).line()
            'whole run: 3 of 12 done (more may come), 25%, about 10 min to go by what was made so far'
            >>> WholeRun(Forecast(0.25, 600.0, ("model",)), 3, 12).line()
            'whole run: 3 of 12 done, 25%, about 10 min to go by what was made so far, roughly: nothing like model was'
            >>> WholeRun(Forecast(unlike=("model",)), 3, 12).line()
            'whole run: 3 of 12 done, time to go unknown: nothing like model was made yet'
        """
        return f"whole run: {self.words}"

    @property
    def words(self) -> str:
        """The same without saying that it is of a whole run."""
        count = f"{self.done} done" if self.total is None else f"{self.done} of {self.total} done"
        told = f"{count}{' (more may come)' if self.may_grow else ''}"
        found = self.forecast
        if found.share is not None:
            basis = "the estimate of `gristmill plan`" if self.is_priced else "what was made so far"
            rough = f", roughly: nothing like {self._unlike} was" if found.unlike else ""
            return f"{told}, {found.share:.0%}, about {about(found.left or 0.0)} to go by {basis}{rough}"
        if found.unlike:
            return f"{told}, time to go unknown: nothing like {self._unlike} was made yet"
        return f"{told}, time to go unknown; `gristmill plan` before a run estimates it"


def whole_run(
    out: str,
    plan: Mapping[str, Any] | None,
    saved: str | None,
    sets: Sequence[SetStatus],
    a_record: Callable[[], Mapping[str, float]],
    *,
    stopped: bool = False,
) -> WholeRun:
    """Return how far a run is by its ``plan.json`` and what is seen below its output.

    ``saved`` is the digest of the settings saved last, ``a_record`` returns the seconds that stages spend on a record.
    ``stopped`` says that no run is at work: what one takes to go on is as planned, whatever the clock said before.
    """
    plan = plan or {}
    run = plan.get("run")
    settings = saved if run is None else run["settings"]
    estimates, rest = estimates_of(plan, settings)
    workers = plan.get("workers", 0) if run is None else run["workers"]
    if run is None:
        work = _without_run(plan, sets, [one["name"] for one in estimates])
        if not estimates:
            return WholeRun(done=sum(map(_is_there, sets)))
        elapsed = None
    else:
        now = max([run["at"], *(one.last for one in sets if one.last is not None and one.last >= run["begun"])])
        if 0 <= time.time() - now < 3 * EVERY and not (run["over"] or stopped):
            now = time.time()  # it is alive, or was a moment ago
        work = _work(out, run["nodes"], sets, now)
        elapsed = None if stopped else max(0.0, now - run["begun"])
    work = priced(work, estimates)
    known = {node["path"] for node in (run or {"nodes": ()})["nodes"] if "path" in node}
    twice = sum("path" in node for node in (run or {"nodes": ()})["nodes"]) - len(known)
    done = sum(one.state == DONE for one in work) - twice
    total = len(work) - twice if run is not None or "results" in plan else None
    found = forecast(work, workers, elapsed, rest, a_record())
    return WholeRun(found, done, total, bool(estimates), run is not None and not estimates)


def _is_there(one: SetStatus) -> bool:
    return one.state in ("sealed", "artifact") or one.used


def _without_run(plan: Mapping[str, Any], sets: Sequence[SetStatus], names: Sequence[str]) -> list[Effort]:
    """Return the work of an output whose run kept no plan: what was made since the estimate."""
    left = Counter(names)
    found = []
    for one in sets:
        if left[one.name] and (_is_there(one) or one.state == "under way"):
            left[one.name] -= 1
            share = None if _is_there(one) or not one.planned else one.records / one.planned
            state = DONE if _is_there(one) else UNDER_WAY
            found.append(Effort(one.name, state=state, share=share, left=None if state == DONE else one.left))
    return found


def _work(out: str, nodes: Sequence[OutlineNode], sets: Sequence[SetStatus], now: float) -> list[Effort]:
    """Return the work of a run by the plan that it kept, as far as what is seen below its output bears it out."""
    by_url = {one.url: one for one in sets}
    begun = Counter(node["since"] for node in nodes if node["state"] == UNDER_WAY and "since" in node)
    found = []
    for node in nodes:
        seen = by_url.get(join(out, node["path"])) if "path" in node else None
        there = seen is not None and seen.state in _FINISHED
        state, seconds, share, left = TO_DO, None, None, None
        if node["state"] == DONE and there:
            state, seconds = DONE, node.get("seconds")
        elif node["state"] == UNDER_WAY and seen is not None and there:
            state, seconds = DONE, max(0.0, (seen.last or now) - node["since"])
        elif node["state"] == UNDER_WAY and seen is not None and seen.state in ("under way", "training"):
            state, seconds, left = UNDER_WAY, max(0.0, now - node["since"]), seen.left
            if seen.state == "training":
                share = seen.done / seen.total if seen.total else None
            else:
                share = seen.records / seen.planned if seen.planned else None
        elif node["state"] == UNDER_WAY and begun[node["since"]] == 1:  # of several, it is not known which has begun
            state, seconds = UNDER_WAY, max(0.0, now - node["since"])
        found.append(effort(node, state, seconds, share, left))
    return found
