"""A cluster is never opened without token authentication, nor to other machines by itself."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from gristmill.cluster import session
from gristmill.shards.errors import UserError
from tests.environment import without_ray


@pytest.mark.parametrize("mode", ["disabled", "none", ""])
@pytest.mark.parametrize("address", [None, "127.0.0.1:1"])
def test_a_mode_without_a_token_is_refused(monkeypatch: pytest.MonkeyPatch, mode: str, address: str | None) -> None:
    def opened(*_: object) -> None:
        raise AssertionError("Ray was opened")

    monkeypatch.setattr(session, "_start_local", opened)
    monkeypatch.setattr(session, "_join", opened)
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    if address is None:
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
    else:
        monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError, match=r"RAY_AUTH_MODE is .*expected 'token'"):
        session.start(1)


@pytest.mark.slow
def test_a_ray_that_was_loaded_before_its_mode_was_set_has_a_token_too(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    code = """
import os, ray
from ray._raylet import AuthenticationMode, get_authentication_mode
before = get_authentication_mode()
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64}
from gristmill.cluster import session
session.start(1)
print(before == AuthenticationMode.TOKEN, get_authentication_mode() == AuthenticationMode.TOKEN)
"""  # which ends without leaving Ray: its guard must not take that for the loss of Ray
    env = without_ray()
    env |= {"PYTHONPATH": str(session.ROOT), "HOME": str(tmp_path)}  # else a token file in it enables the mode
    # On a busy machine Ray is started up to three times: that took over two minutes.
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=290)
    assert (done.stdout.split(), done.stderr, done.returncode) == (["False", "True"], "", 0)


def test_a_local_ray_is_its_own_and_listens_on_loopback_only(tmp_path: Path) -> None:
    """Its processes ask its dashboard (not that of the cluster that was last started on the machine, nor of the one to
    which the user submits jobs), take the system's allocator, and spill to the given folder."""
    pytest.importorskip("ray")
    code = """
import json, os, psutil, sys, threading
from pathlib import Path
from gristmill.cluster import session
from gristmill.cluster.ray_runner import RayRunner
from tests.fault.train_loops import walking
session.start(1)
import ray
def nodes():
    import pyarrow
    from ray.util.state import list_nodes
    return [node.node_id for node in list_nodes(timeout=20)], pyarrow.default_memory_pool().backend_name
here = ray.get_runtime_context().get_node_id()
assert Path(os.environ["RAY_TMPDIR"], "ray", "ray_current_cluster").read_text() == "127.0.0.1:1"
asked = ray.get(ray.remote(nodes).remote()) == ([here], "system")
me = psutil.Process()
found = set()
training = threading.Thread(target=RayRunner(1).train, args=([(walking("walk", seconds=0.5), sys.argv[1])],))
training.start()
while training.is_alive():
    for process in [me, *me.children(recursive=True)]:
        try:
            found |= {c.laddr.ip for c in process.net_connections("inet") if c.status == "LISTEN"}
        except psutil.NoSuchProcess:
            pass
    training.join(1.0)
assert os.path.exists(sys.argv[1] + "/artifact.json"), "nothing was trained"
raylet = next(p for p in me.children(recursive=True) if p.name() == "raylet")
kept = [os.environ.get(name) for name in ("RAY_API_SERVER_ADDRESS", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")]
print(json.dumps([asked, sorted(found), " ".join(raylet.cmdline()), kept]))
session.stop()
"""
    folder = Path(tempfile.mkdtemp(prefix="gm"))  # short: Ray makes sockets below it
    (folder / "ray").mkdir()
    (folder / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
    env = without_ray()
    env |= {"PYTHONPATH": str(session.ROOT), "RAY_TMPDIR": str(folder), session.DASHBOARD: "http://127.0.0.1:2"}
    env |= {session.SPILL: str(tmp_path / "spill")}
    command = [sys.executable, "-c", code, str(tmp_path / "model")]
    try:
        made = subprocess.run(command, env=env, capture_output=True, text=True, timeout=290)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert made.returncode == 0, made.stderr
    asked, found, raylet, kept = json.loads(made.stdout.splitlines()[-1])
    assert asked
    assert {ip.removeprefix("::ffff:") for ip in found} == {"127.0.0.1"}
    assert str(tmp_path / "spill") in raylet
    assert kept == ["http://127.0.0.1:2", None], "the environment of this process was changed"


def test_idle_workers_are_left_to_the_ray_that_ends(tmp_path: Path) -> None:
    code = """
import sys
import ray
from gristmill.cluster import session
from gristmill.cluster.crew import KEPT, crew
from gristmill.cluster.ray_runner import RayRunner
from tests.fault.train_loops import walking
def idle(name):
    session.start(1)
    RayRunner(1).train([(walking(name, seconds=0.0), sys.argv[1] + "/" + name)])
    (worker,) = crew()._idle.values()
    worker.since -= KEPT
    return crew()
late = idle("first")
ray.shutdown()
late._end_rested()  # as its timer does; `ray.kill` would start a Ray
assert not late._idle and not ray.is_initialized()
late = idle("second")
session.stop()
assert late._resting is None and not late._idle and not ray.is_initialized()
"""
    folder = Path(tempfile.mkdtemp(prefix="gm"))  # short: Ray makes sockets below it
    env = without_ray() | {"PYTHONPATH": str(session.ROOT), "RAY_TMPDIR": str(folder)}
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], env=env, capture_output=True, text=True, timeout=290
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_ray_that_does_not_start_in_time_is_started_again() -> None:
    code = """
import threading, time
import psutil, ray
from gristmill.cluster import session
stopped = []
def stop():
    while not stopped:
        for child in psutil.Process().children(recursive=True):
            if child.name() == "raylet":
                child.suspend()
                stopped.append(child.pid)
        time.sleep(0.01)
threading.Thread(target=stop, daemon=True).start()
session.start(1)
assert ray.get(ray.remote(lambda: 7).remote()) == 7
assert not psutil.pid_exists(stopped[0]), "the first raylet is left"
session.stop()
"""
    folder = Path(tempfile.mkdtemp(prefix="gm"))  # short: Ray makes sockets below it
    env = without_ray()
    env |= {"PYTHONPATH": str(session.ROOT), "RAY_TMPDIR": str(folder)}
    try:
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=350)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert done.returncode == 0, done.stderr


def test_the_dashboard_takes_the_next_port_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        with socket.create_server(("127.0.0.1", 0)) as other:
            free = other.getsockname()[1]
        monkeypatch.setattr(session, "DASHBOARD_PORTS", [taken, free])
        assert session._dashboard_port() == free
        monkeypatch.setattr(session, "DASHBOARD_PORTS", [taken])
        assert session._dashboard_port() != taken


def test_an_invalid_spill_folder_is_rejected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(session.SPILL, str(tmp_path / "file" / "spill"))
    with pytest.raises(UserError, match=r"GRISTMILL_SPILL=.* cannot be created"):
        session.spill_folder()
