"""``plan.json`` below an output: the estimate of ``gristmill plan``, and the plan of the run as far as it is declared.

A run that works writes what it has declared and how far it is, when that changes and every ten seconds; so another
process (``gristmill status``) knows the whole run and not only what is committed.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, ConfigDict, TypeAdapter
from typing_extensions import TypedDict

from gristmill.cluster.metrics import tell_progress
from gristmill.pipelines.command.occupied import PLAN
from gristmill.pipelines.forecast import Effort, Forecast, PlannedResult, forecast, priced
from gristmill.pipelines.graph import DONE, TO_DO, UNDER_WAY
from gristmill.pipelines.outline import Outline, OutlineNode, effort
from gristmill.pipelines.provenance import first_made
from gristmill.pipelines.run import Run
from gristmill.shards import checked, store
from gristmill.shards.errors import Damaged, GristmillError, with_class

EVERY = 10.0  # seconds after which it is written again while the run works
_PAUSE = 1.0  # seconds between two writes
_KIND = "estimate"
_ABOUT = ("results", "rest", "settings", "sample", "workers", "cost")  # of the estimate


class _Part(TypedDict):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    seconds: float


def _with_whole(estimate: dict[str, float | _Part]) -> dict[str, float | _Part]:
    """Check that there are seconds of the whole run, and parts of it only."""
    if {name for name, value in estimate.items() if not isinstance(value, dict)} != {"seconds"}:
        raise ValueError("expected the seconds of the run, and its parts")
    return estimate


class _Kept(TypedDict):
    """The plan of a run while it works; times are of its own clock."""

    workers: int  # that make results side by side; 0: one after the other
    settings: str  # the digest of those that results depend on
    begun: float
    at: float  # when this was written
    over: bool
    nodes: list[OutlineNode]


class _Planned(TypedDict):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    at: NotRequired[float]  # when the estimate was made
    estimate: NotRequired[Annotated[dict[str, float | _Part], AfterValidator(_with_whole)]]
    results: NotRequired[list[PlannedResult]]
    rest: NotRequired[float]  # estimated seconds outside all results
    run: NotRequired[_Kept]


_SHAPE = TypeAdapter(_Planned)


def read_plan(out: str) -> dict[str, Any] | None:
    """Return the newest plan of the run under ``out``, or ``None``. It may lack the ``estimate``, or the ``run``.

    Raises:
        Damaged: the file is not as it was written.
    """
    made = checked.read_as(_KIND, store.join(out, PLAN), _SHAPE)
    return None if made is None else dict(made)


def estimate(out: str) -> dict[str, Any]:
    """Return the estimate of ``gristmill plan`` for the run under ``out``; empty if there is none."""
    return (read_plan(out) or {}).get("estimate", {})


def write_plan(out: str, made: Mapping[str, Any]) -> None:
    """Keep the estimate of a run, and the time at which it was made."""
    _write(out, {**made, "at": time.time()}, "run")


def _write(out: str, made: Mapping[str, Any], *kept: str) -> dict[str, Any]:
    """Write a part of the plan, keep other parts, and return the whole."""
    checked.refuse_irregular(store.join(out, PLAN))
    before: Mapping[str, Any] = {}
    with contextlib.suppress(Damaged):
        before = read_plan(out) or {}
    there = {name: value for name, value in before.items() if name in kept}
    whole = {**there, **made}
    store.write_bytes(store.join(out, PLAN), checked.encode(_KIND, whole))
    return whole


def estimates_of(plan: Mapping[str, Any], settings: str | None) -> tuple[list[PlannedResult], float]:
    """Return the estimates of the results of a run with these settings, and the estimated seconds of the rest; none if
    the plan has no estimate of it."""
    if "results" not in plan or plan.get("settings") not in (None, settings):
        return [], 0.0
    return list(plan["results"]), float(plan.get("rest", 0.0))


class PlanKeeper:
    """Keeps the plan of a run that works, in a thread of its own; ``settings`` is the digest of its settings.

    It costs the run no time, and what fails here ends no run: only what is told of it.
    """

    def __init__(self, run: Run, settings: str = "", every: float = EVERY) -> None:
        self.run, self.settings, self.every = run, settings, every
        self._outline: Outline | None = None
        self._changed, self._over = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._failed = False

    @property
    def earlier(self) -> Mapping[str, float]:
        """The seconds that earlier calls took for results, by URL."""
        if self._outline is None:
            return earlier_seconds(self.run.out)
        return self._outline.earlier

    def foresee(self) -> None:
        """Expect the results that a run with the same settings has declared, which ended just now or before, unless it
        is known what this one makes."""
        agenda = self.run.progress.agenda
        with contextlib.suppress(OSError, GristmillError):  # as if there were none
            kept = (read_plan(self.run.out) or {}).get("run")
            if kept is None or agenda.expected or not self.settings or kept["settings"] != self.settings:
                return
            places = {node.get("path", number): node["name"] for number, node in enumerate(kept["nodes"])}
            agenda.foresee(list(places.values()))  # what is used twice is one

    def begin(self, allowed: Callable[[], bool]) -> None:
        """Begin to write; ``allowed`` says whether the output is still this run's."""
        self._allowed = allowed
        self._outline = Outline(self.run.plan, self.run.out, earlier_seconds(self.run.out))
        self.run.progress.agenda.changed = self._changed.set
        self._begun = time.time()
        self._changed.set()
        self._thread = threading.Thread(target=self._work, name="plan", daemon=True)
        self._thread.start()

    def end(self, *, over: bool, write: bool = True) -> None:
        """Write for the last time; ``over`` says that all is made. Nothing is written of a run that made nothing."""
        if self._thread is None:
            return
        self.run.progress.agenda.changed = None
        self._over.set()
        self._changed.set()
        self._thread.join()
        self._thread = None
        if write:
            self._put(over=over)

    def _work(self) -> None:
        while not self._over.is_set():
            self._changed.wait(self.every)
            self._changed.clear()
            if self._over.is_set():
                return
            self._put(over=False)
            self._over.wait(_PAUSE)

    def _put(self, *, over: bool) -> None:
        if self._outline is None or not self._allowed() or self._failed:
            return
        try:
            nodes = self._outline.nodes(first_made(self.run.trace), self.run.progress.agenda.parts)
            workers, now = self.run.cluster.parallel(), time.time()
            kept = {"workers": workers, "settings": self.settings, "begun": self._begun, "at": now, "over": over}
            plan = _write(self.run.out, {"run": {**kept, "nodes": nodes}}, "at", "estimate", *_ABOUT)
            estimates, rest = estimates_of(plan, self.settings)
            found = Forecast(1.0, 0.0)
            if not over:
                found = forecast(self._efforts(nodes, estimates), workers, now - self._begun, rest)
            self.run.progress.agenda.expect(None if found.unlike else found.left)
            if found.share is not None:
                tell_progress(store.last_name(self.run.out), found.share)
        except (OSError, GristmillError):
            pass  # the storage does not answer: the run itself will say so if that lasts
        except Exception as error:  # ours; what is told of a run is worth no run
            self._failed = True
            self.run.progress.say(f"{PLAN}: how far the run is cannot be kept ({with_class(error)}); the run goes on")

    def _efforts(self, nodes: Sequence[OutlineNode], estimates: Sequence[PlannedResult]) -> list[Effort]:
        """Return the results of the run, by what is known in this process."""
        now, parts, work = time.time(), self.run.progress.agenda.parts, []
        for node in nodes:
            part = parts.get(store.join(self.run.out, node.get("path", "")))
            if node["state"] == UNDER_WAY and part is not None and part.share:
                left = None if part.until is None else max(0.0, part.until - now)
                work.append(effort(node, UNDER_WAY, now - node["since"], part.share, left))
            else:
                work.append(effort(node, DONE if node["state"] == DONE else TO_DO, node.get("seconds")))
        return priced(work, estimates)


def earlier_seconds(out: str) -> dict[str, float]:
    """Return the seconds that results of an output took when they were made, by URL, as far as they are known."""
    kept: Mapping[str, Any] = {}
    with contextlib.suppress(Damaged):
        kept = (read_plan(out) or {}).get("run", {})
    known = (node for node in kept.get("nodes", ()) if node["state"] == "done" and node.get("seconds") is not None)
    return {store.join(out, node["path"]): node["seconds"] for node in known}
