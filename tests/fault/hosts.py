"""Two hosts on this machine: namespaces of their own for network, processes, mounts and name, joined by a cable."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

NAMES = ("head", "worker")
ADDRESSES = ("10.213.7.1", "10.213.7.2")


def need_namespaces() -> None:
    """Skip the test where hosts cannot be made."""
    if os.geteuid() != 0:
        pytest.skip("namespaces of two hosts need root")
    for program in ("ip", "unshare", "nsenter"):
        if shutil.which(program) is None:
            pytest.skip(f"the program {program} is absent: `apt-get install iproute2 util-linux`")
    if subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True).returncode:
        pytest.skip("this kernel, or container, makes no namespaces")


class Host:
    """A host that lives as long as its first process, and with it all others."""

    def __init__(self, name: str, address: str, folder: Path) -> None:
        self.name, self.address, self.folder = name, address, folder
        folder.mkdir()
        # /tmp stays shared, since Python itself may be there; what Ray keeps by fixed names below it does not.
        begin = (
            f"mount -t tmpfs tmpfs /dev/shm && mkdir -p /tmp/ray && mount -t tmpfs tmpfs /tmp/ray && hostname {name}"
        )
        spaces = ["--net", "--pid", "--fork", "--mount", "--uts", "--mount-proc", "--kill-child"]
        script = f"{begin} && ip link set lo up && exec sleep infinity"
        self._holder = subprocess.Popen(["unshare", *spaces, "sh", "-c", script])
        self.pid = self._first()

    def inside(self) -> list[str]:
        """Return what to put before a command to run it on the host."""
        return ["nsenter", "-t", str(self.pid), "--net", "--pid", "--mount", "--uts", "--"]

    def run(self, command: Sequence[str], environment: Mapping[str, str], log: str) -> subprocess.Popen[bytes]:
        """Start a program on the host."""
        with (self.folder / log).open("ab") as out:
            whole = [*self.inside(), *command]
            return subprocess.Popen(whole, env=dict(environment), stdout=out, stderr=out, cwd=self.folder)

    def end(self) -> None:
        """End the host with all that runs on it."""
        self._holder.kill()
        self._holder.wait()

    def _first(self) -> int:
        """Return the number, outside, of the host's first process, once it is ready."""
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children")
        until = time.monotonic() + 60
        while time.monotonic() < until:
            found = children.read_text().split() if children.exists() else []
            if found and "sleep" in Path(f"/proc/{found[0]}/cmdline").read_text():
                return int(found[0])
            if self._holder.poll() is not None:
                pytest.skip("this container does not let a test mount its own /dev/shm")
            time.sleep(0.05)
        pytest.fail(f"host {self.name} does not come up")


class Hosts:
    """A head and a worker with a cable between them."""

    def __init__(self, folder: Path) -> None:
        self.all = [Host(n, a, folder / n) for n, a in zip(NAMES, ADDRESSES, strict=True)]
        self.head, self.worker = self.all
        cable = ["ip", "link", "add", "cable", "netns", str(self.head.pid), "type", "veth"]
        _do([*cable, "peer", "name", "cable", "netns", str(self.worker.pid)])
        for host in self.all:
            _do([*host.inside(), "ip", "address", "add", f"{host.address}/24", "dev", "cable"])
            _do([*host.inside(), "ip", "link", "set", "cable", "up"])

    def cut(self) -> None:
        """Cut the cable silently: neither host is notified."""
        _do([*self.worker.inside(), "ip", "link", "set", "cable", "down"])

    def heal(self) -> None:
        """Mend the cable."""
        _do([*self.worker.inside(), "ip", "link", "set", "cable", "up"])

    def end(self) -> None:
        for host in self.all:
            host.end()


def _do(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)
