"""What is ready is made side by side, or one thing at a time in the order of the longest path."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from gristmill.pipelines.scheduler import Alone, Halt, Scheduler
from gristmill.shards.artifact import Artifact
from gristmill.shards.plan import Plan, PlanNode, resolved, using

WAIT = 20.0


def is_source(node: PlanNode) -> bool:
    return node.kind == "source"


class Made:
    """A plan whose results are made by functions; those that are called by several threads may meet."""

    def __init__(self, *, beside: bool) -> None:
        self.order: list[str] = []
        self.halts: list[bool] = []
        self.said: list[str] = []
        self.is_beside = beside
        self.plan = Plan(lambda nodes: self.scheduler.make(nodes))
        self.scheduler = Scheduler(self.plan, self.make, self.beside, is_source, self.said.append)

    @contextlib.contextmanager
    def beside(self) -> Iterator[Halt | None]:
        yield self.halts.append if self.is_beside else None

    def make(self, nodes: Sequence[PlanNode]) -> None:
        for node in nodes:
            self.order.append(node.name)
            with using(node):
                work, _ = resolved(node.work)
                work()
            self.end(node)

    def end(self, node: PlanNode) -> None:
        self.plan.finish(node, Artifact(node.name, node.name, {}, {}))
        self.scheduler.look()

    def __call__(
        self, name: str, *needs: Artifact, kind: str = "step", work: Callable[[], object] = lambda: None
    ) -> Artifact:
        return self.plan.artifact(name, kind, (work, list(needs)))

    def finish(self) -> None:
        if missing := self.plan.missing():
            self.scheduler.make(missing)


def test_one_thing_at_a_time_the_longest_path_first() -> None:
    made = Made(beside=False)
    text = made("text", kind="source")
    short = made("short", text)
    long = made("long", text)
    made("model", long, kind="training")
    made("late", kind="source")
    made.finish()
    assert made.order == ["text", "late", "long", "model", "short"]
    assert short.digest == "short"


def test_what_is_ready_is_made_side_by_side() -> None:
    made, meet = Made(beside=True), threading.Barrier(3)
    text = made("text", kind="source")
    for name in ("a", "b"):
        made(name, text, work=lambda: meet.wait(WAIT))
    made("c", kind="training", work=lambda: meet.wait(WAIT))
    made.finish()
    assert sorted(made.order) == ["a", "b", "c", "text"]
    assert not made.halts


def test_what_the_driver_makes_is_made_by_one_thread() -> None:
    made, threads = Made(beside=True), set()
    for name in ("one", "two"):
        made(name, kind="source", work=lambda: threads.add(threading.current_thread()))
    made("other", kind="artifact", work=lambda: threads.add(None))
    made.finish()
    assert threads == {threading.current_thread(), None}


def test_what_needs_one_of_several_trainings_does_not_wait_for_the_others() -> None:
    made, done = Made(beside=True), threading.Event()

    def waits() -> None:
        assert done.wait(WAIT)

    short = made("short", kind="training")
    made("long", kind="training", work=waits)
    made("after", short, work=done.set)
    made.finish()
    assert sorted(made.order) == ["after", "long", "short"]


def test_a_value_that_is_read_while_something_is_made_is_made_then() -> None:
    made = Made(beside=True)
    artifact = made("artifact", kind="artifact")
    other = made("other")
    made("reads", work=lambda: (artifact.digest, other.digest))
    made("driver reads", kind="artifact", work=lambda: other.digest)
    made.finish()
    assert sorted(made.order) == ["artifact", "driver reads", "other", "reads"]
    assert [node.name for node in made.plan.nodes if 1 in node.uses] == ["reads", "driver reads"]


def halted_beside() -> tuple[Made, Callable[[], None], threading.Event]:
    """Return a plan, work that goes on until it is halted, and what is set once that has begun."""
    made, halted, begun = Made(beside=True), threading.Event(), threading.Event()

    def halt(now: bool) -> None:
        made.halts.append(now)
        halted.set()

    def goes_on() -> None:
        begun.set()
        assert halted.wait(WAIT)

    made.scheduler._beside = lambda: contextlib.nullcontext(halt)
    return made, goes_on, begun


def broken() -> None:
    raise ValueError("broken")


@pytest.mark.parametrize("kind", ["step", "training", "source"])
def test_an_error_halts_what_runs_beside_and_keeps_what_was_made(kind: str) -> None:
    made, goes_on, begun = halted_beside()

    def breaks() -> None:
        assert begun.wait(WAIT)
        broken()

    before = made("before", kind="source")
    beside = made("beside", before, work=goes_on)
    bad = made("bad", before, kind=kind, work=breaks)
    made("never", bad)
    made("nor", beside)
    with pytest.raises(ValueError, match="broken"):
        made.finish()
    assert sorted(made.order) == ["bad", "before", "beside"]
    assert set(made.halts) == {False}
    assert [node.name for node in made.plan.missing()] == ["bad", "never", "nor"]
    if kind != "source":
        assert made.said == ["bad: broken; the run ends once what runs beside has ended: beside"]
    # A second attempt, as of a caller that has mended the cause, makes the rest.
    made.plan.nodes[2].work = (lambda: None, [])
    made.finish()
    assert not made.plan.missing()


def test_a_long_sentence_is_told_once_by_who_ends_the_run() -> None:
    made, goes_on, begun = halted_beside()
    sentence = f"step 7: 240 of 240 records broke, the commonest error is {'x' * 200}; expected fewer"

    def breaks() -> None:
        assert begun.wait(WAIT)
        raise ValueError(sentence)

    made("beside", work=goes_on)
    made("bad", work=breaks)
    with pytest.raises(ValueError, match="expected fewer"):
        made.finish()
    (said,) = made.said
    assert said.startswith("bad: step 7: 240 of 240 records broke, ")
    assert said.endswith(" [...]; the run ends once what runs beside has ended: beside")
    assert len(said) < 150


def test_an_interruption_does_not_wait_for_trainings() -> None:
    made, goes_on, begun = halted_beside()

    def interrupted() -> None:
        assert begun.wait(WAIT)
        raise KeyboardInterrupt

    made("beside", kind="training", work=goes_on)
    made("listing", kind="source", work=interrupted)
    with pytest.raises(KeyboardInterrupt):
        made.finish()
    assert made.halts == [True]


def test_equal_results_are_made_by_one_thread_at_a_time() -> None:
    alone, inside, most = Alone(), [], []

    def work(*urls: str) -> None:
        with alone.on(*urls):
            inside.append(urls)
            most.append(len(inside))
            inside.pop()

    threads = [threading.Thread(target=work, args=urls) for urls in (("a", "b"), ("b", "a"), ("b", "b")) * 20]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert set(most) == {1}
    with alone.on("a"), alone.on("a", "b"):
        pass


def test_no_halt_comes_after_its_end() -> None:
    """A thread that fails alone halts the others before the run is over: a halt that came later would stay."""
    made, told = Made(beside=True), []
    leave = threading.Event()

    def halt(now: bool) -> None:
        leave.wait(0.2)  # the maker would go on meanwhile
        told.append("halted")

    @contextlib.contextmanager
    def ended() -> Iterator[Halt | None]:
        with contextlib.ExitStack() as stack:
            stack.callback(lambda: told.append("reopened"))
            yield halt

    made.scheduler._beside = ended

    def fail() -> None:
        raise ValueError("gone")

    made("broken", work=fail)
    with pytest.raises(ValueError, match="gone"):
        made.finish()
    assert "halted" in told
    leave.wait(0.5)
    assert told[-1] == "reopened"
