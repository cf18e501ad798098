"""What a machine needs before a run, checked one by one."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

from pipelines.launch import answered, check_out
from shards import store
from shards.errors import GristmillError

_LEAST_DISK = 5 << 30  # bytes
_LEAST_SHARED = 1 << 30


class Failed(Exception):
    """A check found something that stops a run."""


def show_checks(out: str) -> bool:
    """Print one line for each check; tell whether a run can start."""
    checks: list[tuple[str, Callable[[], str]]] = [
        ("python", _python),
        ("packages", _packages),
        ("ray", _ray),
        ("token authentication", _token),
        ("output", lambda: _output(out)),
        ("disk", lambda: _disk(out)),
        ("shared memory", _shared_memory),
        ("cpus", lambda: f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()}"),
        ("gpus", _gpus),
    ]
    well = True
    for name, check in checks:
        try:
            print(f"OK    {name}: {check()}", flush=True)
        except (Failed, GristmillError) as error:
            well = False
            print(f"FAIL  {name}: {error}", flush=True)
    return well


def _python() -> str:
    return ".".join(map(str, sys.version_info[:3]))


def _required() -> list[str]:
    """Return the requirements as the project states them, installed or run from a checkout."""
    project = Path(__file__).resolve().parent.parent / "pyproject.toml"
    if project.is_file():
        import tomllib

        return tomllib.loads(project.read_text())["project"]["dependencies"]
    try:
        given = importlib.metadata.requires("gristmill") or []
    except importlib.metadata.PackageNotFoundError:
        raise Failed("neither pyproject.toml nor an installed gristmill says what is needed") from None
    return [text for text in given if "extra ==" not in text]


def _packages() -> str:
    found, wrong = [], []
    for text in _required():
        match = re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*([^;]*)", text)
        assert match is not None
        name, wanted = match[1], match[2].strip()
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{name} is missing")
            continue
        if not _fits(version, wanted):
            wrong.append(f"{name} is {version}, expected {wanted}")
        found.append(f"{name} {version}")
    if wrong:
        raise Failed("; ".join(wrong))
    return ", ".join(found)


def _fits(version: str, wanted: str) -> bool:
    def numbers(text: str) -> tuple[int, ...]:
        parts = [int(part) for part in re.findall(r"\d+", text.partition("+")[0])]
        while parts and not parts[-1]:
            parts.pop()  # 1.0 is 1
        return tuple(parts)

    for clause in filter(None, (part.strip() for part in wanted.split(","))):
        sign, bound = re.match(r"([<>=!~]+)\s*(.+)", clause).groups()  # type: ignore[union-attr]
        have, limit = numbers(version), numbers(bound)
        if (sign == ">=" and have < limit) or (sign == "<" and have >= limit) or (sign == "==" and have != limit):
            return False
    return True


def _ray() -> str:
    try:
        import ray
    except ImportError as error:
        raise Failed(f"cannot be imported ({error}); only runner=inprocess will work") from None
    address = os.environ.get("RAY_ADDRESS")
    return f"{ray.__version__}, " + (f"joins the cluster at {address}" if address else "a run starts a local one")


def _token() -> str:
    mode = os.environ.get("RAY_AUTH_MODE", "token")
    if mode != "token":
        raise Failed(f"RAY_AUTH_MODE is {mode!r}: anyone who reaches the cluster could run code; expected 'token'")
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "on, the token is in RAY_AUTH_TOKEN"
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if path.is_file():
        if path.stat().st_mode & 0o077:
            raise Failed(f"others can read the token in {path}; expected `chmod 600`")
        return f"on, the token is in {path}"
    if os.environ.get("RAY_ADDRESS"):
        raise Failed("RAY_ADDRESS names a cluster and no token is set; expected RAY_AUTH_TOKEN")
    return "on, a local run makes its own token"


def _output(out: str) -> str:
    check_out(out)
    made = None
    if store.is_local(out):
        path = Path(store.filesystem(out)[1])
        made = next((p for p in reversed((path, *path.parents)) if not p.exists()), None)
    probe = store.join(out, f".doctor-{uuid.uuid4().hex}")
    try:
        if not answered(out, lambda: store.put_if_absent(probe, b"1")):
            raise Failed(f"{out}: the first put of a new file was refused")
        if store.put_if_absent(probe, b"2") or store.read_bytes(probe) != b"1":
            raise Failed(f"{out}: the storage does not honour put if absent, on which commits rest")
    except OSError as error:
        raise Failed(f"{out}: cannot be written ({error})") from None
    finally:
        if answered(out, lambda: store.exists(probe)):
            store.remove(probe)
        if made is not None:
            store.remove(str(made))
    return f"{out} can be written, put if absent holds"


def _disk(out: str) -> str:
    path = Path(store.filesystem(out)[1]) if store.is_local(out) else Path(os.environ.get("TMPDIR", "/tmp"))
    nearest = next(p for p in (path, *path.parents) if p.exists())
    free = shutil.disk_usage(nearest).free
    if free < _LEAST_DISK:
        raise Failed(f"{free / 2**30:.1f} GiB free at {nearest}; expected {_LEAST_DISK / 2**30:.0f} or more")
    return f"{free / 2**30:.1f} GiB free at {nearest}"


def _shared_memory() -> str:
    shared = Path("/dev/shm")
    if not shared.is_dir():
        return "no /dev/shm; Ray takes the disk"
    free = shutil.disk_usage(shared).free
    if free < _LEAST_SHARED:
        raise Failed(f"{free / 2**20:.0f} MiB free at {shared}; expected 1 GiB or more (docker: --shm-size)")
    return f"{free / 2**30:.1f} GiB free at {shared}"


def _gpus() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none; stages and trainings run on CPUs"
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return ", ".join(names)
