"""Requests to object storage: fixed numbers per shard and per step, and no listing per shard."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.object_store import requests_of_steps
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.shards import store
from tests.counting import CountingProxy, operation

# Reads: is there a receipt by now, and the rows. Writes: rows, receipt, and rejects where there are some.
READS, WRITES, LISTINGS = ("GetObject", "HeadObject"), ("PutObject",), ("ListObjects", "HeadBucket", "GetBucket")
A_SHARD = {"three stages": (2, 3), "the same again": (0, 0), "cut anew": (3, 2), "a join": (3, 2)}


@pytest.fixture(scope="module")
def proxy(s3_endpoint: str, bucket: str) -> Iterator[CountingProxy]:
    import s3fs

    with CountingProxy(s3_endpoint.removeprefix("http://")) as counting:
        os.environ["AWS_ENDPOINT_URL"] = counting.url
        s3fs.S3FileSystem.clear_instance_cache()
        yield counting
        os.environ["AWS_ENDPOINT_URL"] = s3_endpoint
        s3fs.S3FileSystem.clear_instance_cache()


def check(counts: dict[str, dict[str, tuple[float, float]]]) -> None:
    for case, operations in counts.items():
        reads, writes, listings = (
            [sum(operations.get(name, (0, 0))[place] for name in names) for place in (0, 1)]
            for names in (READS, WRITES, LISTINGS)
        )
        most = A_SHARD[case]
        # Of a receipt that came while the step began, there may be one look more.
        assert reads[0] <= most[0] + 0.1, (case, operations)
        assert writes[0] <= most[1] + 0.1, (case, operations)
        assert listings[0] == 0, (case, operations)
        assert reads[1] + writes[1] + listings[1] <= 12, (case, operations)
        assert set(operations) <= {*READS, *WRITES, *LISTINGS}, (case, operations)


def test_in_process(proxy: CountingProxy, bucket: str) -> None:
    check(requests_of_steps(proxy, f"{bucket}/inprocess", InProcessRunner()))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_on_ray(proxy: CountingProxy, bucket: str) -> None:
    """In a process of its own, whose workers go through the proxy too."""
    pytest.importorskip("ray")
    command = [sys.executable, "-m", "tests.cluster.requests_driver", f"{bucket}/ray"]
    begun = len(proxy.requests)
    done = subprocess.run(command, capture_output=True, text=True, timeout=550, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    shards = int(done.stdout.split()[-1])
    counts = proxy.counts(begun)
    assert counts["GetObject"] + counts["HeadObject"] <= 2 * shards + 12, counts
    assert counts["PutObject"] <= 5 * shards + 4, counts  # two of them for the corpus
    assert counts["ListObjects"] <= 4, counts


def test_large_files_go_up_in_parts_and_once(
    proxy: CountingProxy, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PART_BYTES", 5 << 20)
    url, data = f"{bucket}/large/file", os.urandom(11 << 20)
    begun = len(proxy.requests)
    assert store.put_if_absent(url, data)
    counts = proxy.counts(begun)
    assert (counts["UploadPart"], counts["CompleteMultipartUpload"]) == (3, 1)
    assert not store.put_if_absent(url, bytes(len(data))), "a second writer won"
    assert store.read_bytes(url) == data
    store.write_bytes(url, data[::-1])
    assert store.read_bytes(url) == data[::-1]
    store.remove_file(url)
    assert store.read_if_present(url) is None
    store.remove_file(url)


def test_a_refused_large_file_leaves_no_parts(
    proxy: CountingProxy, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PART_BYTES", 5 << 20)
    url = f"{bucket}/large/refused"
    store.write_bytes(url, b"first")
    begun = len(proxy.requests)
    assert not store.put_if_absent(url, bytes(11 << 20))
    assert proxy.counts(begun)["AbortMultipartUpload"] == 1
    assert store.read_bytes(url) == b"first"


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/b/a/b.json", ("GetObject", "a/b.json")),
        ("GET", "/b?list-type=2&prefix=a%2F&delimiter=%2F", ("ListObjects", "a/")),
        ("PUT", "/b/a?partNumber=1&uploadId=x", ("UploadPart", "a")),
        ("POST", "/b/a?uploads", ("CreateMultipartUpload", "a")),
        ("POST", "/b/a?uploadId=x", ("CompleteMultipartUpload", "a")),
        ("DELETE", "/b/a?uploadId=x", ("AbortMultipartUpload", "a")),
        ("POST", "/b?delete", ("DeleteObjects", "")),
        ("HEAD", "/b", ("HeadBucket", "")),
    ],
)
def test_operations_are_distinguished(method: str, path: str, expected: tuple[str, str]) -> None:
    assert operation(method, path) == expected
