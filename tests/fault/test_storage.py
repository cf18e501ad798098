"""The storage fails, truncates or disappears: runs have the same result, or end with a sentence in bounded time."""

from __future__ import annotations

import gc
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.shards import store
from gristmill.shards.audit import audit_below
from gristmill.shards.dataset import SealedSet
from gristmill.shards.engine import Progress, run_step
from gristmill.shards.errors import UserError
from gristmill.shards.lease import Lease
from gristmill.shards.receipt import Receipt
from gristmill.shards.walking import walk
from tests.fault.law_actors import corpus, law_step
from tests.fault.proxy import FAULTS, FaultyProxy
from tests.ports import free_ports
from tests.weed import GRPC, Weed

SHARDS = 8


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Sends all that this process asks of S3 to another endpoint, for the test."""
    s3fs = pytest.importorskip("s3fs")
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": 2}})

    def turn(url: str) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        s3fs.S3FileSystem.clear_instance_cache()

    yield turn
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def undisturbed(tmp_path: Path) -> str:
    source = corpus(str(tmp_path / "corpus"), SHARDS)
    return run_step(law_step(source), str(tmp_path / "whole"), InProcessRunner(), 1).digest


def exact(out: str, sealed: SealedSet, digest: str) -> None:
    """Assert the law: the digest of the undisturbed run, and nothing missing or twice."""
    assert sealed.digest == digest
    audits = list(audit_below(out))
    assert [audit.digest for audit in audits] == [digest]
    assert [gap for audit in audits for gap in audit.gaps] == []


def upstream(url: str) -> tuple[str, int]:
    parts = urllib.parse.urlsplit(url)
    return str(parts.hostname), int(parts.port or 80)


@pytest.mark.parametrize("seed", [1, 2])
def test_requests_that_break_are_made_again(
    bucket: str, s3_endpoint: str, endpoint: Callable[[str], None], undisturbed: str, seed: int, tmp_path: Path
) -> None:
    root = f"{bucket}/faults-{seed}"
    with FaultyProxy(upstream(s3_endpoint), {**dict.fromkeys(FAULTS, 0.05), "silence": 0.02}, seed) as proxy:
        endpoint(proxy.url)
        source = corpus(f"{root}/corpus", SHARDS)
        sealed = run_step(law_step(source), f"{root}/out", InProcessRunner(), 1)
        assert proxy.done["passed"] > 50
        assert sum(proxy.done.values()) > proxy.done["passed"] + 8
    endpoint(s3_endpoint)
    exact(f"{root}/out", sealed, undisturbed)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault(bucket: str, s3_endpoint: str, endpoint: Callable[[str], None], fault: str) -> None:
    """Of everything a run asks of its storage, with many requests broken."""
    root, data = f"{bucket}/each/{fault.replace(' ', '-')}", b"some bytes of it" * 4096
    with FaultyProxy(upstream(s3_endpoint), {fault: 0.1 if fault == "silence" else 0.4}, 3) as proxy:
        endpoint(proxy.url)
        for number in range(4):
            url = f"{root}/{number}"
            assert store.read_if_present(url) is None
            assert store.put_if_absent(url, data), "its own put, of which the answer was lost, was taken for another's"
            assert not store.put_if_absent(url, b"other")
            store.write_bytes(f"{root}/again", data + b"%d" % number)
            assert store.read_bytes(f"{root}/again") == data + b"%d" % number
            assert store.read_bytes(url) == data
        assert store.list_names(root) == ["0", "1", "2", "3", "again"]
        assert {file.size for file in walk(f"{root}/0")} == {len(data)}
        assert len(list(walk(root))) == 5
        store.remove(f"{root}/again")
        assert not store.exists(f"{root}/again")
        assert proxy.done[fault] > 0


class Switch(Progress):
    """Does something at the second receipt."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act, self.heard = act, 0

    def advance(self, receipt: Receipt) -> None:
        self.heard += 1
        if self.heard == 2:
            self.act()


def test_a_storage_that_stays_down_ends_the_run(
    bucket: str,
    s3_endpoint: str,
    endpoint: Callable[[str], None],
    undisturbed: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = f"{bucket}/down"
    monkeypatch.setenv(store.SETTING, "2")
    with FaultyProxy(upstream(s3_endpoint), {}, 1) as proxy:
        endpoint(proxy.url)
        source = corpus(f"{root}/corpus", SHARDS)
        step = law_step(source)

        def down() -> None:
            proxy.down = True

        begun = time.monotonic()
        with pytest.raises(UserError, match=r"the storage cannot be reached: no successful response for \d+ s"):
            run_step(step, f"{root}/out", InProcessRunner(), 1, Switch(down))
        assert time.monotonic() - begun < 60
        proxy.down = False
        sealed = run_step(step, f"{root}/out", InProcessRunner(), 1)
    endpoint(s3_endpoint)
    exact(f"{root}/out", sealed, undisturbed)


@pytest.mark.parametrize("act", ["read", "list", "write", "look"])
def test_keys_that_expired_are_named(
    bucket: str, s3_endpoint: str, endpoint: Callable[[str], None], undisturbed: str, act: str
) -> None:
    with FaultyProxy(upstream(s3_endpoint), {}, 1) as proxy:
        endpoint(proxy.url)
        proxy.expired = True
        url = f"{bucket}/expired"
        acts = {"read": lambda: store.read_if_present(url), "list": lambda: store.list_names(url)}
        acts |= {"write": lambda: store.put_if_absent(url, b"1"), "look": lambda: store.exists(url)}
        with pytest.raises(UserError, match=r"access refused.*check the credentials, which may have expired"):
            acts[act]()


def test_keys_that_expire_in_the_middle_end_the_run(
    bucket: str, s3_endpoint: str, endpoint: Callable[[str], None], undisturbed: str
) -> None:
    root = f"{bucket}/expiring"
    with FaultyProxy(upstream(s3_endpoint), {}, 1) as proxy:
        endpoint(proxy.url)
        step = law_step(corpus(f"{root}/corpus", SHARDS))

        def expire() -> None:
            proxy.expired = True

        with pytest.raises(UserError, match="access refused"):
            run_step(step, f"{root}/out", InProcessRunner(), 1, Switch(expire))
        proxy.expired = False
        sealed = run_step(step, f"{root}/out", InProcessRunner(), 1)
    endpoint(s3_endpoint)
    exact(f"{root}/out", sealed, undisturbed)


def test_a_bucket_deleted_in_the_middle_is_named(
    s3_endpoint: str, endpoint: Callable[[str], None], undisturbed: str
) -> None:
    import s3fs

    endpoint(s3_endpoint)
    s3fs.S3FileSystem().mkdir("deleted")
    step = law_step(corpus("s3://deleted/corpus", SHARDS))
    with pytest.raises(UserError, match="the bucket s3://deleted does not exist"):
        run_step(
            step, "s3://deleted/out", InProcessRunner(), 1, Switch(lambda: s3fs.S3FileSystem().rm("deleted", True))
        )
    assert not store.exists("s3://deleted/corpus")


def test_a_versioned_bucket(s3_endpoint: str, endpoint: Callable[[str], None], undisturbed: str) -> None:
    """What was removed is absent, though its versions are kept; what was replaced is read as it is now."""
    import s3fs

    endpoint(s3_endpoint)
    fs, url = s3fs.S3FileSystem(), "s3://versioned/a"
    fs.mkdir("versioned")
    fs.call_s3("put_bucket_versioning", Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    for number in range(2):
        assert store.put_if_absent(url, b"%d" % number)
        assert not store.put_if_absent(url, b"other")
        assert store.read_bytes(url) == b"%d" % number
        store.remove(url)
        assert store.read_if_present(url) is None
        assert store.list_names("s3://versioned") == []
    for data in (b"first", b"second"):
        store.write_bytes(url, data)
        assert store.read_bytes(url) == data
    assert [file.size for file in walk("s3://versioned")] == [6]
    lease = Lease("s3://versioned/out")
    lease.take(lambda text: pytest.fail(text))
    sealed = run_step(law_step(corpus("s3://versioned/corpus", SHARDS)), "s3://versioned/out", InProcessRunner(), 1)
    lease.release()
    exact("s3://versioned/out", sealed, undisturbed)


def test_an_upload_that_breaks_off_leaves_no_file(
    bucket: str, s3_endpoint: str, endpoint: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    endpoint(s3_endpoint)
    monkeypatch.setattr(store, "PART_BYTES", 5 << 20)
    for size in (1, 6 << 20):

        def chunks(size: int = size) -> Iterator[bytes]:
            yield bytes(size)
            raise RuntimeError("broken")

        with pytest.raises(RuntimeError, match="broken"):
            store.write_chunks(f"{bucket}/broken/{size}", chunks)
    gc.collect()
    assert store.list_names(f"{bucket}/broken") == []
    assert not s3fs.S3FileSystem().call_s3("list_multipart_uploads", Bucket="tests").get("Uploads")


def test_a_storage_server_is_killed_and_started_again(
    tmp_path: Path, endpoint: Callable[[str], None], undisturbed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Weed(tmp_path / "weed", free_ports(4, partner=GRPC))
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    endpoint(server.endpoint)
    server.start()
    try:
        server.wait("killed")
        source = corpus("s3://killed/corpus", SHARDS)
        again = threading.Timer(2.0, server.start)  # from beside: the run asks for something by then

        def kill() -> None:
            server.kill()
            again.start()

        sealed = run_step(law_step(source), "s3://killed/out", InProcessRunner(), 1, Switch(kill))
        again.join()
        exact("s3://killed/out", sealed, undisturbed)
    finally:
        server.kill()
