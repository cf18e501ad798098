"""Interrupts wait where C code would lose them, and those that were lost are found before a commit."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.shards import interrupts
from gristmill.shards.artifact import put_artifact
from gristmill.shards.dataset import seal_tables
from gristmill.shards.interrupts import held, let_in


class Handled(BaseException):
    pass


@pytest.fixture(autouse=True, params=[signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def number(request: pytest.FixtureRequest) -> Iterator[int]:
    """A signal whose handler raises, as anybody's may."""

    def handle(*_: object) -> None:
        handled.append(request.param)
        raise Handled

    handled.clear()
    before = signal.signal(request.param, handle)
    yield request.param
    assert signal.getsignal(request.param) is handle
    signal.signal(request.param, before)


handled: list[int] = []


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def test_an_interrupt_waits_until_all_that_holds_it_ended(number: int) -> None:
    done = []

    def work() -> None:
        with held():
            with held():
                send(number)
                done.append("inner")
            done.append("outer")

    with pytest.raises(Handled):
        work()
    assert done == ["inner", "outer"]
    with pytest.raises(Handled):  # and nothing is held any more
        send(number)


def test_the_second_interrupt_is_handled_at_once_and_the_first_still_arrives(number: int) -> None:
    counts = []

    def work() -> None:
        with held():
            for _ in range(2):
                send(number)
                counts.append(len(handled))

    with pytest.raises(Handled):
        work()
    assert counts == [0, 2]
    assert len(handled) == 3


@pytest.mark.parametrize("waits", [True, False])
def test_an_interrupt_is_let_in_where_what_it_raises_is_kept(number: int, waits: bool) -> None:
    def work() -> None:
        if waits:
            send(number)
        with let_in():
            send(number)

    with held():
        with pytest.raises(Handled):
            work()
        assert len(handled) == 1


def test_an_interrupt_comes_before_the_error_that_a_library_gives(number: int) -> None:
    def work() -> None:
        with held():
            send(number)
            raise ValueError

    with pytest.raises(Handled):
        work()


def test_nothing_is_committed_or_sealed_after_an_interrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"id": ["a"]})
    monkeypatch.setattr(interrupts, "_heard", True)
    with pytest.raises(KeyboardInterrupt):
        seal_tables(str(tmp_path / "set"), "set", [table])
    with pytest.raises(KeyboardInterrupt):
        put_artifact(str(tmp_path / "made"), {"file": b"1"}, {})
    monkeypatch.setattr(interrupts, "_heard", False)
    assert not list(tmp_path.rglob("*.json"))
