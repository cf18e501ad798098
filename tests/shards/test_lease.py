"""Of several runs with one output, one works: on local disk and on object storage."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from gristmill.shards import lease as leases
from gristmill.shards import owner, store
from gristmill.shards.errors import UserError
from gristmill.shards.lease import FOLDER, SETTING, Lease, LeaseLost


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


def test_what_dead_holders_left_is_taken_away(tmp_path: Path) -> None:
    """A beat without its claim, a part of either, and parts anywhere below the output."""
    out = tmp_path / "out"
    for name in (".lease/000003.beat", ".lease/.part-x", "a/data/.part-y", "a/data/kept"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).touch()
    lease = Lease(str(out))
    lease.take(silent)
    stale = {"000003.beat", ".part-x", ".part-y"}
    assert {path.name for path in out.rglob("*")} & (stale | {"kept", "000001.json"}) == {"kept", "000001.json"}
    (out / "a" / "data" / ".part-of-a-worker").touch()
    lease.release()
    assert [path.name for path in out.rglob("*") if path.is_file()] == ["kept"]


@pytest.mark.parametrize("wrong", [{"every": "x"}, {"host": 3}, {"process": "x@1"}, {"process": None}])
def test_a_claim_that_no_run_wrote_is_taken_over(tmp_path: Path, wrong: dict[str, object]) -> None:
    holder = vars(leases._myself(0.1)) | wrong
    store.put_if_absent(str(tmp_path / FOLDER / "000001.json"), json.dumps(holder).encode())
    store.put_if_absent(str(tmp_path / FOLDER / "mine.json"), b"{}")
    lease = Lease(str(tmp_path))
    lease.take(lambda _: None)
    lease.release()
    assert left(str(tmp_path)) == []


def test_a_dead_process_of_this_machine_is_not_waited_for(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTING, "1000")
    if not owner.machine():
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


def test_it_is_refused_to_wait_for_one_that_lives(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out = store.join(root, "out")
    holder, other = Lease(out), Lease(out)
    other.refuse_held()
    holder.take(silent)
    with pytest.raises(UserError, match="another run has been working at"):
        other.refuse_held()
    # On another machine it is known to live by its next heartbeat.
    monkeypatch.setattr(owner, "machine", lambda: "another machine")
    with pytest.raises(UserError, match="another run has been working at"):
        other.take_at_once()
    assert not other.held
    holder.release()
    other.take_at_once()
    other.release()
    assert left(out) == []


def test_before_what_cannot_be_undone_a_claim_is_looked_for_again(root: str) -> None:
    out = store.join(root, "out")
    lease = Lease(out)
    lease.take(silent)
    lease.confirm()
    store.remove_file(store.join(lease.url, "000001.json"))
    lease._beaten -= 60.0  # as if the process had been stopped for so long
    with pytest.raises(LeaseLost):
        lease.confirm()
    lease.release()
