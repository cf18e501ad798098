"""Checks of each node of a cluster, by a task that is pinned to it."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gristmill.shards import processor, store
from gristmill.shards.errors import GristmillError, UserError

ANSWER_WITHIN = 60.0  # seconds for a node to answer: it may have to start a process first
LEAST_SHARED = 1 << 30  # bytes of /dev/shm
LEAST_DISK = 5 << 30
_MARKER = ".gristmill-"  # prefix of the files that test storage

_DEVICES = """
import torch
print(*(torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())), sep="\\n")
"""


@dataclass(frozen=True)
class Driver:
    """The driver's facts, with which the nodes are compared."""

    python: str
    versions: Mapping[str, str]  # of packages
    url: str  # of the output
    marker: str  # the name of a file there
    processor: str  # the level that the run is pinned to


@dataclass
class Node:
    """A node with its facts, and the problems that stop a run."""

    name: str
    id: str = ""
    gpus: float = 0.0  # as Ray counts them
    found: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def check_shared(url: str) -> None:
    """Reject a folder that is not shared by all nodes of the cluster.

    Raises:
        UserError: names the nodes that do not see it.
    """
    nodes = alive()
    if len(nodes) < 2:
        return
    with marked(url) as marker:
        found = _ask(nodes, _sees, url, marker)
    apart = [node.name for node, seen in found if seen is not True]
    if apart:
        raise UserError(
            f"out={url}: this path is on the disk of one machine, and the cluster has {len(found)} nodes "
            f"({', '.join(apart)} cannot see it); expected object storage (s3://...) or a folder that all nodes share"
        )


def check_processors() -> None:
    """Reject a cluster with a machine that cannot compute at the level of this process.

    Raises:
        UserError: names the machines, and what they offer.
    """
    found = _ask(alive(), processor.keep, processor.level())
    if wrong := [str(answer) for _, answer in found if isinstance(answer, UserError)]:
        raise UserError(*wrong)


def look_at_nodes(url: str, versions: Mapping[str, str]) -> list[Node]:
    """Return the facts and problems of each node; ``versions`` are those of the driver's relevant packages."""
    nodes = alive()
    with marked(url) as marker:
        driver = Driver(sys.version.split()[0], dict(versions), url, marker, processor.level())
        for node, facts in _ask(nodes, look, driver):
            if isinstance(facts, Exception):
                node.problems.append(str(facts))
                continue
            node.found, node.problems = facts["found"], facts["problems"]
            devices = facts["devices"]
            if len(devices) < node.gpus:
                node.problems.append(f"Ray counts {node.gpus:g} GPUs and torch sees {len(devices)}")
            node.found.append(f"{len(devices)} GPUs" + f" ({', '.join(devices)})" * bool(devices))
            try:
                back = store.exists(store.join(url, facts["written"])) if facts["written"] else True
            finally:
                if facts["written"]:
                    store.remove(store.join(url, facts["written"]))
            if not back:
                node.problems.append(f"files it writes at {url} are not seen here: not shared storage")
    return nodes


def alive() -> list[Node]:
    """Return the live nodes, the head first."""
    import ray

    found = [node for node in ray.nodes() if node["Alive"]]
    found.sort(key=lambda node: ("node:__internal_head__" not in node["Resources"], node["NodeManagerAddress"]))
    return [
        Node(
            f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:6]})",
            node["NodeID"],
            node["Resources"].get("GPU", 0.0),
        )
        for node in found
    ]


def _ask(nodes: Sequence[Node], function: Any, *arguments: Any) -> list[tuple[Node, Any]]:
    """Return a function's result on each node, or the error of a node that failed or did not answer."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(function)
    asked = [
        task.options(
            num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
        ).remote(*arguments)
        for node in nodes
    ]
    ready, _ = ray.wait(asked, num_returns=len(asked), timeout=ANSWER_WITHIN)
    answers: list[tuple[Node, Any]] = []
    for node, reference in zip(nodes, asked, strict=True):
        answer: Any = RuntimeError(f"gave no answer within {ANSWER_WITHIN:g} s")
        if reference in ready:
            try:
                answer = ray.get(reference)
            except Exception as error:  # any failure on the node is its result
                answer = RuntimeError(" ".join(str(error).strip().splitlines()[-1:])[:200])
        answers.append((node, answer))
    return answers


# On the node.


def _sees(url: str, marker: str) -> bool:
    return store.exists(store.join(url, marker))


def look(driver: Driver) -> dict[str, Any]:
    """Return the facts of this node, and its problems."""
    found, problems, written = [], [], ""
    python = sys.version.split()[0]
    if python != driver.python:
        problems.append(f"Python is {python}, the driver's is {driver.python}")
    others = [
        f"{name} is {here or 'missing'}, the driver's is {there}"
        for name, there in driver.versions.items()
        if (here := _version(name)) != there
    ]
    problems += others
    if not others:
        found.append(f"Python {python} and packages as the driver's")
    try:
        processor.keep(driver.processor)
        found.append(f"processor {processor.label()} ({processor.model()})")
    except UserError as error:
        problems.append(str(error))
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    if not is_token_auth_enabled():
        problems.append("token authentication is off: anyone who reaches it could run code")
    try:
        if not _sees(driver.url, driver.marker):
            problems.append(
                f"files that the driver writes at {driver.url} are not seen: expected object storage (s3://...) or a "
                "folder that all nodes share"
            )
        else:
            written = f"{_MARKER}{uuid.uuid4().hex}"
            put_twice(driver.url, written)
            found.append("put if absent holds")
    except (OSError, GristmillError) as error:
        problems.append(f"the output cannot be written: {error}")
    for check in (free_shared, functools.partial(free_disk, driver.url)):
        try:
            found.append(check())
        except UserError as error:
            problems.append(str(error))
    try:
        devices = devices_seen()
    except RuntimeError as error:
        devices = []
        problems.append(str(error))
    return {"found": found, "problems": problems, "written": written, "devices": devices}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def put_twice(url: str, name: str) -> None:
    """Put a file if absent, twice; a storage that accepts the second put raises :class:`UserError`."""
    probe = store.join(url, name)
    if not store.put_if_absent(probe, b"1"):
        raise UserError(f"{url}: the first put of a new file was refused")
    if store.put_if_absent(probe, b"2") or store.read_bytes(probe) != b"1":
        raise UserError(f"{url}: the storage does not honour put if absent, on which commits rest")


@contextlib.contextmanager
def marked(url: str) -> Iterator[str]:
    """Write a temporary file below a URL and yield its name; folders created for it are removed with it."""
    name = f"{_MARKER}{uuid.uuid4().hex}"
    made = None
    if store.is_local(url):
        path = Path(store.filesystem(url)[1])
        made = next((p for p in reversed((path, *path.parents)) if not os.path.lexists(p)), None)
    try:
        put_twice(url, name)
        yield name
    finally:
        store.remove(store.join(url, name))
        if made is not None:
            # Deepest first; a folder that others wrote to meanwhile stays.
            with contextlib.suppress(OSError):
                for folder in (path, *path.parents):
                    folder.rmdir()
                    if folder == made:
                        break


def free_shared() -> str:
    """Return the free shared memory as text; too little raises :class:`UserError`."""
    shared = Path("/dev/shm")
    if not shared.is_dir():
        return "no /dev/shm; Ray uses the disk"
    free = shutil.disk_usage(shared).free
    if free < LEAST_SHARED:
        raise UserError(f"{free / 2**20:.0f} MiB free at {shared}; expected 1 GiB or more (docker: --shm-size)")
    return f"{free / 2**30:.1f} GiB free at {shared}"


def free_disk(url: str) -> str:
    """Return the free disk space of the output or the scratch folder as text; too little raises :class:`UserError`."""
    path = Path(store.filesystem(url)[1]) if store.is_local(url) else Path(os.environ.get("TMPDIR", "/tmp"))
    nearest = next(p for p in (path, *path.parents) if os.path.exists(p))
    free = shutil.disk_usage(nearest).free
    if free < LEAST_DISK:
        raise UserError(f"{free / 2**30:.1f} GiB free at {nearest}; expected {LEAST_DISK / 2**30:.0f} or more")
    return f"{free / 2**30:.1f} GiB free at {nearest}"


def devices_seen() -> list[str]:
    """Return the names of the GPUs that torch sees on this machine.

    In a process of its own: Ray hides GPUs from tasks that request none, and torch keeps memory on those it queries.
    """
    if not Path("/proc/driver/nvidia").exists() and not Path("/dev/nvidiactl").exists():
        return []
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    made = subprocess.run([sys.executable, "-c", _DEVICES], env=environment, capture_output=True, text=True, timeout=50)
    if made.returncode:
        raise RuntimeError(
            f"torch cannot query the GPUs: {(made.stderr.strip().splitlines() or ['it ended'])[-1][:200]}"
        )
    return made.stdout.splitlines()
