"""The plan of a run as it goes on, as it is kept for other processes: each result, its state, and what it resembles.

What it resembles (the stages of a step, the loop of a training) and its size are for an estimate of the time to go
(:mod:`gristmill.pipelines.forecast`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NotRequired

from typing_extensions import TypedDict

from gristmill.actors.training.settings import Schedule
from gristmill.pipelines.agenda import AgendaPart
from gristmill.pipelines.forecast import Effort
from gristmill.pipelines.graph import DONE, TO_DO, UNDER_WAY, base_name
from gristmill.pipelines.results import SourceWork, Trace, workers_of
from gristmill.shards.dataset import SealedSet
from gristmill.shards.job import TrainJob
from gristmill.shards.plan import Later, Plan, PlanNode, holds_later, nodes_in
from gristmill.shards.settings import Settings
from gristmill.shards.step import Step


class OutlineNode(TypedDict):
    """One result."""

    name: str
    kind: str  # source, step, artifact, training
    inputs: list[int]
    of: list[list[int]]  # what its size is the sum of: of each part the largest set
    passes: float  # over them
    like: list[str]  # what results of like work have in common, the nearest first
    stages: list[str]  # of a step
    workers: int  # that it keeps busy; 0: the driver makes it itself
    state: str  # done, under way, to do
    path: NotRequired[str]  # below the output, once it is known
    rows: NotRequired[int]  # of a set that is done
    seconds: NotRequired[float | None]  # that it took
    kept: NotRequired[bool]  # made by an earlier call
    since: NotRequired[float]  # Unix time at which its work began


class Outline:
    """Describes the results of a plan; ``earlier`` has the seconds of those that earlier calls made, by URL.

    Example:
        >>> import pyarrow as pa
        >>> from gristmill.cluster.inprocess import InProcessRunner
        >>> from gristmill.pipelines.run import Run
        >>> run = Run("made/outline", InProcessRunner())
        >>> texts = run.table("texts", pa.table({"id": ["a"], "text": ["on"]}))
        >>> kept = run.step(Step("kept", (), texts))
        >>> [(one["name"], one["state"], one["inputs"]) for one in Outline(run.plan, run.out, {}).nodes({}, {})]
        [('texts', 'to do', []), ('kept', 'to do', [0])]
    """

    def __init__(self, plan: Plan, out: str, earlier: Mapping[str, float]) -> None:
        self.plan, self.out, self.earlier = plan, out, dict(earlier)
        self._described: list[dict[str, Any]] = []

    def nodes(self, made: Mapping[str, Trace], under: Mapping[str, AgendaPart]) -> list[OutlineNode]:
        """Return the results; ``made`` has those that are done by URL, ``under`` those under way."""
        known = list(self.plan.nodes)
        for node in known[len(self._described) :]:
            self._described.append(_described(node))
        found: list[OutlineNode] = []
        told_of: set[str] = set()  # URLs
        for node, told in zip(known, self._described, strict=True):
            # The run goes on meanwhile, and may have declared more.
            own = [one.number for one in self.plan.used_by(node) if one.number < len(known)]
            one: OutlineNode = {"name": node.name, "kind": node.kind, "inputs": own, **told, "state": TO_DO}  # type: ignore[typeddict-item]
            if node.made is not None and (trace := made.get(node.made.url)) is not None:
                one |= self._of_trace(trace)
                if trace.url in told_of:
                    one |= {"seconds": 0.0, "kept": True}  # it is used twice
                told_of.add(trace.url)
            found.append(one)
        self._place(found, under)
        return found

    def _of_trace(self, trace: Trace) -> Any:
        seconds = self.earlier.get(trace.url) if trace.kept else trace.seconds
        rows = {"rows": trace.records} if trace.summary else {}
        return {"state": DONE, "path": self._path(trace.url), "seconds": seconds, "kept": trace.kept, **rows}

    def _path(self, url: str) -> str:
        return url.removeprefix(self.out).strip("/")

    def _place(self, found: list[OutlineNode], under: Mapping[str, AgendaPart]) -> None:
        """Note what is under way; of results that were begun together, some may have ended before the others."""
        ended = [part for part in under.values() if part.ended is not None]
        together = {part.since: sum(one.since == part.since for one in ended) for part in ended}
        last = {part.since: max(one.ended or 0.0 for one in ended if one.since == part.since) for part in ended}
        for url, part in under.items():
            for one in found:
                if one["state"] == TO_DO and one["name"] == part.name:
                    one["path"] = self._path(url)
                    if part.ended is None:
                        one |= {"state": UNDER_WAY, "since": last.get(part.since, part.since)}
                    else:
                        share = (last[part.since] - part.since) / together[part.since]
                        one |= {"state": DONE, "seconds": share, "kept": False}
                    break


def _described(node: PlanNode) -> dict[str, Any]:
    """Return what is known of the size and the likeness of a result before it is made."""
    work, base = node.work, base_name(node.name)
    like, stages, of, passes = [f"{node.kind} {base}"], [], [[one.number] for one in node.inputs], 1.0
    if isinstance(work, Step):
        of = [[one.number for one in nodes_in(work.input)]]
        stages = [] if holds_later(work.stages) else [base_name(stage.name) for stage in work.stages]
    elif isinstance(work, SourceWork):
        of = [[one.number for one in nodes_in(work.of)]]
    elif isinstance(work, TrainJob):
        kind = "training" if work.stepwise else "fit"
        like.append(f"{kind} by {work.loop}")
        of, passes = list(_parts(work.inputs)), sum(_epochs(work.settings)) or 1.0
    told = {"of": [part for part in of if part], "passes": passes, "like": like, "stages": stages}
    return told | {"workers": workers_of(node)}


def _parts(value: Any) -> Iterator[list[int]]:
    """Yield the numbers of the sets of each part of a training's inputs: those side by side are columns of one."""
    if isinstance(value, Later):
        value = list(value.given)
    inner = (
        list(value.values()) if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else [value]
    )
    sets = [one for one in inner if isinstance(one, SealedSet)]
    numbers = [node.number for one in sets for node in nodes_in(one)]
    if numbers and isinstance(value, Mapping):
        yield numbers
    else:
        yield from ([number] for number in numbers)
    for one in inner:
        if isinstance(one, Mapping | list | tuple | Later):
            yield from _parts(one)


def _epochs(value: Any) -> Iterator[float]:
    """Yield the passes over the data of each phase of a training."""
    if isinstance(value, Schedule):
        yield value.epochs or 0.0
    elif isinstance(value, Settings):
        yield from _epochs([getattr(value, name) for name in type(value).model_fields])
    elif isinstance(value, Later):
        yield from _epochs(value.given)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _epochs(one)


def effort(
    node: OutlineNode,
    state: str,
    seconds: float | None = None,
    share: float | None = None,
    left: float | None = None,
) -> Effort:
    """Return what the forecast is to know of a result that is in some state, on which ``seconds`` were spent."""
    is_fit = any(one.startswith("fit by ") for one in node["like"])
    return Effort(
        name=node["name"],
        kind="fit" if is_fit else node["kind"],
        state=state,
        inputs=node["inputs"],
        workers=node["workers"],
        of=node["of"],
        passes=node["passes"],
        like=node["like"],
        stages=node["stages"],
        rows=node.get("rows"),
        seconds=seconds,
        share=share,
        left=left,
        kept=bool(node.get("kept")) and state == DONE,
    )
