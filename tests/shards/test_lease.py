"""Of several runs with one output, one works: on local disk and on object storage."""

from __future__ import annotations

import json
import threading
import time

import pytest

from gristmill.shards import lease as leases
from gristmill.shards import store
from gristmill.shards.errors import UserError
from gristmill.shards.lease import FOLDER, SETTING, Lease, LeaseLost
from gristmill.shards.machine import this_machine


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTING, "1.5")


def silent(text: str) -> None:
    raise AssertionError(f"it waits: {text}")


def left(out: str) -> list[str]:
    # Some object stores keep a folder that was emptied, and list it as being in itself.
    return [name for name in store.list_names(store.join(out, FOLDER)) if name != FOLDER]


def test_it_is_taken_given_back_and_leaves_nothing(root: str) -> None:
    out = store.join(root, "out")
    for _ in range(2):
        lease = Lease(out)
        lease.take(silent)
        lease.check()
        assert lease.held
        assert "000001.json" in left(out)
        lease.release()
        lease.release()
        assert left(out) == []


def test_of_many_at_once_one_holds_it_at_a_time(root: str) -> None:
    out, at_work, seen = store.join(root, "out"), [], []

    def work() -> None:
        lease = Lease(out)
        lease.take(lambda _: None)
        at_work.append(1)
        seen.append(len(at_work))
        time.sleep(0.2)
        at_work.pop()
        lease.release()

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert seen == [1] * 5
    assert left(out) == []


def test_a_holder_that_beats_is_waited_for(root: str) -> None:
    first, second, messages = Lease(store.join(root, "out")), Lease(store.join(root, "out")), []
    first.take(silent)
    waiter = threading.Thread(target=second.take, args=(messages.append,))
    waiter.start()
    waiter.join(3 * first.seconds)
    assert not second.held
    (line,) = messages
    assert line.startswith(f"another run has been working at {root}/out since 20")
    assert line.endswith("waiting")
    first.release()
    waiter.join(20)
    assert second.held
    second.release()


@pytest.mark.parametrize("claim", ["of another machine", "torn"])
def test_a_claim_without_a_beat_is_taken_over(root: str, claim: str) -> None:
    out = store.join(root, "out")
    holder = {"token": "x", "machine": "elsewhere", "process": "1@1", "host": "h", "since": "long ago", "every": 0.1}
    data = json.dumps(holder).encode()
    store.put_if_absent(store.join(out, FOLDER, "000004.json"), data if claim != "torn" else data[:20])
    lease = Lease(out)
    begun = time.monotonic()
    lease.take(lambda _: None)
    assert time.monotonic() - begun >= lease.seconds
    assert "000005.json" in left(out)
    assert "000004.json" not in left(out)
    lease.release()
    assert left(out) == []


def test_a_dead_process_of_this_machine_is_not_waited_for(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTING, "1000")
    if not this_machine():
        pytest.skip("this system does not tell which machine it is")
    out = store.join(root, "out")
    dead = vars(leases._myself(100.0)) | {"process": "1@1"}
    store.put_if_absent(store.join(out, FOLDER, "000001.json"), json.dumps(dead).encode())
    lease = Lease(out)
    lease.take(silent)
    lease.release()


def test_a_holder_presumed_dead_is_notified_and_does_no_harm(root: str) -> None:
    out, heard = store.join(root, "out"), threading.Event()
    zombie, other = Lease(out, heard.set), Lease(out)
    zombie.take(silent)
    for name in store.list_names(store.join(out, FOLDER)):
        store.remove(store.join(out, FOLDER, name))  # what taking over does to its claim
    other.take(silent)
    assert heard.wait(20)
    with pytest.raises(LeaseLost, match="another one took its place"):
        zombie.check()
    zombie.release()
    other.check()
    assert "000001.json" in left(out)
    other.release()
    assert left(out) == []


def test_a_time_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTING, "soon")
    with pytest.raises(UserError, match="expected a number of seconds"):
        Lease("out")
