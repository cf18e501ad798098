"""The distillation recipe with everything on object storage: input, shards, checkpoints, banks and report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from gristmill.shards import store
from gristmill.shards.audit import audit_below
from tests.counting import CountingProxy
from tests.pipelines.speech.test_distill import CONFIG, SMALL, digests, run

RECIPE = [item for item in SMALL if not item.startswith(("corpus", "noise", "sweep", "runner"))]
RECIPE += ["sweep={k: [], temperature: []}"]
TEXTS = ["go on", "turn it off", "stop", "no", "yes", "go"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speech")
    rng = np.random.default_rng(0)
    for part, count in (("labelled", 6), ("raw", 12), ("noise", 4)):
        lines = []
        (folder / part).mkdir()
        for number in range(count):
            tone = 0.3 * np.sin(np.arange(12000) * (0.05 + 0.02 * number)) * rng.uniform(0.2, 1, 12000)
            soundfile.write(folder / part / f"{number}.wav", tone, 8000)
            entry = {"audio_filepath": f"{number}.wav", "speaker": f"s{number}", "duration": 1.5}
            lines.append(json.dumps(entry | ({"text": TEXTS[number]} if part == "labelled" else {})))
        if part != "noise":
            (folder / part / "manifest.jsonl").write_text("\n".join(lines))
    return folder


def settings(place: str, out: str, rows: int = 3) -> list[str]:
    corpus = (
        f"corpus={{labelled: {place}/labelled, unlabelled: {place}/raw, sampling_rate: 8000, shard: {{rows: {rows}}}}}"
    )
    return [*RECIPE, corpus, f"noise={place}/noise", f"out={out}"]


@pytest.fixture(scope="module")
def proxy(s3_endpoint: str, bucket: str, corpus: Path) -> Iterator[CountingProxy]:
    import s3fs

    with CountingProxy(s3_endpoint.removeprefix("http://")) as counting:
        os.environ["AWS_ENDPOINT_URL"] = counting.url
        s3fs.S3FileSystem.clear_instance_cache()
        for path in corpus.rglob("*.*"):
            store.write_bytes(f"{bucket}/speech/{path.relative_to(corpus)}", path.read_bytes())
        yield counting
        os.environ["AWS_ENDPOINT_URL"] = s3_endpoint
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def local(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    out = tmp_path_factory.mktemp("out")
    assert run(*settings(str(corpus), str(out)), "runner=inprocess").exit_code == 0
    return made(str(out))


def made(out: str) -> set[tuple[str, str]]:
    """Names and digests of all results but pointers, which contain the location of files and so differ."""
    return {(name, digest) for name, digest in digests(out) if not name.startswith(("listing_", "probed_", "split_"))}


def check(counts: Counter[str], out: str) -> None:
    """Compare counts with the results: sets, their shards, and everything that is done once."""
    found = list(audit_below(out))
    shards, sets = sum(one.shards for one in found), len(found)
    assert counts["ListObjects"] <= 5 * sets + 20, (counts, shards, sets)
    assert counts["PutObject"] <= 3 * shards + 3 * sets + 60, (counts, shards, sets)
    assert counts["GetObject"] + counts["HeadObject"] <= 12 * shards + 10 * sets, (counts, shards, sets)


@pytest.mark.slow
def test_same_bytes_and_few_requests(proxy: CountingProxy, bucket: str, local: set[tuple[str, str]]) -> None:
    out = f"{bucket}/whole"
    begun = len(proxy.requests)
    result = run(*settings(f"{bucket}/speech", out), "runner=inprocess")
    counts = proxy.counts(begun)
    assert result.exit_code == 0, result.stderr
    assert made(out) == local
    assert b"<svg" in store.read_bytes(f"{out}/report.html")
    check(counts, out)
    begun = len(proxy.requests)
    assert "nothing to do" in run(*settings(f"{bucket}/speech", out), "runner=inprocess").stdout
    again = proxy.counts(begun)
    assert not again["PutObject"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_same_bytes_on_ray(proxy: CountingProxy, bucket: str, local: set[tuple[str, str]]) -> None:
    pytest.importorskip("ray")
    out = f"{bucket}/ray"
    begun = len(proxy.requests)
    # In a process of its own, whose workers have the proxy's address.
    command = [
        sys.executable,
        "-m",
        "gristmill.pipelines.command.cli",
        "run",
        CONFIG,
        *settings(f"{bucket}/speech", out),
    ]
    done = subprocess.run([*command, "runner=ray", "workers=2"], capture_output=True, text=True, timeout=850)
    assert done.returncode == 0, done.stderr
    counts = proxy.counts(begun)
    assert made(out) == local
    check(counts, out)
