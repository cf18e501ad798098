"""Checks of a machine's requirements before a run."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from gristmill.cluster import nodes, session
from gristmill.pipelines.command.launch import answered, check_out
from gristmill.shards import processor
from gristmill.shards.errors import GristmillError
from gristmill.shards.safe_text import safe


class Failed(Exception):
    """A check failed: a run could not start."""


def show_checks(out: str, cluster: bool = False) -> bool:
    """Print one line per check; return whether a run can start.

    With ``cluster``, or if ``RAY_ADDRESS`` is set, each node of the cluster is checked too.
    """
    checks: list[tuple[str, Callable[[], str]]] = [
        ("python", _python),
        ("processor", _processor),
        ("packages", _packages),
        ("extras", _extras),
        ("ray", _ray),
        ("token authentication", _token),
        ("output", lambda: _output(out)),
        ("disk", lambda: nodes.free_disk(out)),
        ("shared memory", nodes.free_shared),
        ("spilling", _spill),
        ("cpus", lambda: f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()}"),
        ("gpus", _gpus),
    ]
    bad = sum(not _shown(name, check) for name, check in checks)
    if cluster or session.joined():
        bad += sum(not _shown(name, check) for name, check in _nodes(out))
    return not bad


def _shown(name: str, check: Callable[[], str]) -> bool:
    try:
        print(f"OK    {name}: {safe(str(check()))}", flush=True)
    except (Failed, GristmillError) as error:
        print(f"FAIL  {name}: {safe(str(error))}", flush=True)
        return False
    return True


def _python() -> str:
    return ".".join(map(str, sys.version_info[:3]))


def _processor() -> str:
    processor.check()
    here = f"this machine offers {processor.offered()} ({processor.model()})"
    if processor.level() == processor.NATIVE:
        return f"not pinned, so that results may differ between machines; {here}"
    return f"pinned to {processor.level()}; {here}"


def _stated() -> tuple[list[str], dict[str, list[str]]]:
    """Return the requirements as the project states them, installed or run from a checkout: all, and by extra."""
    project = session.ROOT / "pyproject.toml"
    if project.is_file():
        import tomllib

        stated = tomllib.loads(project.read_text())["project"]
        return stated["dependencies"], stated["optional-dependencies"]
    try:
        given = importlib.metadata.requires("gristmill") or []
    except importlib.metadata.PackageNotFoundError:
        raise Failed("neither pyproject.toml nor an installed gristmill lists the requirements") from None
    extras: dict[str, list[str]] = {}
    for text in given:
        if found := re.search(r"extra == ['\"]([^'\"]+)", text):
            extras.setdefault(found[1], []).append(text)
    return [text for text in given if "extra ==" not in text], extras


def _packages() -> str:
    found, wrong = _versions(_stated()[0])
    if wrong:
        raise Failed("; ".join(wrong))
    return ", ".join(found)


def _extras() -> str:
    """Return the extras, those that are incomplete with their missing packages: some recipes need one."""
    extras = []
    for extra, texts in _stated()[1].items():
        if extra != "dev":
            wrong = _versions(texts)[1]
            extras.append(f"{extra} ({'; '.join(wrong)})" if wrong else extra)
    return ", ".join(extras)


def _versions(texts: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the installed packages with their versions, and the problems: missing packages, wrong versions."""
    found, wrong = [], []
    for text in texts:
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
    return found, wrong


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
    try:
        answered(out, lambda: _put_twice(out))
    except OSError as error:
        raise Failed(f"{out}: cannot be written ({error})") from None
    return f"{out} can be written, put if absent holds"


def _put_twice(out: str) -> None:
    with nodes.marked(out):
        pass


def _spill() -> str:
    folder = session.spill_folder()
    return f"the object store spills to {folder or 'the folder of the Ray session'}"


def _gpus() -> str:
    try:
        found = nodes.devices_seen()
    except RuntimeError as error:
        raise Failed(str(error)) from None
    return ", ".join(found) or "none; stages and trainings run on CPUs"


def _nodes(out: str) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield a check for each node of the cluster, or a failing one if the cluster cannot be checked."""
    try:
        session.start()
    except GristmillError as error:
        yield "cluster", functools.partial(_fail, str(error))
        return
    try:
        found = nodes.look_at_nodes(out, dict(map(_named, _stated()[0])))
    except (OSError, GristmillError) as error:
        yield "cluster", functools.partial(_fail, f"{out}: {error}")
        return
    for node in found:
        if node.problems:
            yield f"node {node.name}", functools.partial(_fail, "; ".join(node.problems))
        else:
            yield f"node {node.name}", functools.partial(", ".join, node.found)


def _named(requirement: str) -> tuple[str, str]:
    name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
    try:
        return name, importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return name, "missing"


def _fail(message: str) -> str:
    raise Failed(message)
