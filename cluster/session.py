"""The Ray session, started or joined in one place: quiet, and never without token authentication."""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import secrets
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import gristmill
from gristmill.cluster import janitor
from gristmill.cluster.guard import Guard, check_start
from gristmill.cluster.joining import answering, check_address
from gristmill.cluster.packing import packed_modules
from gristmill.cluster.starting import lastingly, muted, signals_kept
from gristmill.shards import owner, processor
from gristmill.shards.errors import GristmillError, UserError, one_line
from gristmill.shards.names import own_modules
from gristmill.shards.process import ALLOCATOR, ARROW_POOL

ROOT = Path(gristmill.__file__).resolve().parent.parent  # of the checkout or of the installation

# One thread per worker: there are many workers, and the order of sums over threads differs between machines (law 1).
# Arrow chooses its allocator when it is loaded, which Ray may do before a stage is built. So do numpy and others their
# instruction set: a local Ray's processes inherit that of this process (shards.processor), others are given it.
WORKER = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ARROW_NUM_THREADS"), "1"),
    ARROW_POOL: ALLOCATOR,
}
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no telemetry
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # interval of polling a group, which delays its end
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # else its C++ code writes useless lines to the terminal
}
# For a cluster's head and workers: an unreachable machine is given up after half a minute instead of three. Not for a
# Ray on one machine, which has none to give up and may be unresponsive for that long when busy.
HEALTH = {
    "RAY_health_check_initial_delay_ms": "5000",
    "RAY_health_check_period_ms": "3000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "4",
}
# A local Ray listens on loopback only. Despite its name the variable also works on Linux.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
# Where Ray's processes query the state of its actors. Without either variable they query the cluster that was last
# started on the machine, which may be another one or gone: then each training ends 12 s late, and its resource guard is
# misled.
DASHBOARD, ADDRESS = "RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"
DASHBOARD_PORTS = range(8265, 8315)
SPILL = "GRISTMILL_SPILL"  # environment variable with the folder for objects spilled from the object store
TRIES = 3  # of starting a local Ray
OBJECT_STORE_LEAST = 256 << 20
OBJECT_STORE_MOST = 8 << 30

_starting = threading.RLock()  # results are made side by side
_guard: Guard | None = None  # of the Ray that this process started or joined
_before_stop: Callable[[], object] = lambda: None


def start(workers: int | None = None) -> int:
    """Start a local Ray, or join the one at ``RAY_ADDRESS``, and return the number of CPUs to use.

    ``workers`` is the number of CPUs of a local Ray, which may exceed the machine's; of a running Ray it is the maximum
    to use. A local Ray listens on loopback only; its object store takes a part of the free memory and spills to the
    folder ``GRISTMILL_SPILL`` (or below ``RAY_TMPDIR``), until the disk is 95 % full. Ray's other settings come from
    the environment as usual (``RAY_AUTH_MODE``, ``RAY_AUTH_TOKEN``, ...).

    When this Ray is gone, the process ends with a sentence and exit code 130, as Ray itself ends it without one; see
    :mod:`gristmill.cluster.guard`. What sessions of drivers that have ended left on this machine is removed first.

    Raises:
        UserError: Ray is not installed, ``RAY_ADDRESS`` is none, the cluster cannot be joined, or token authentication
            is turned off.
    """
    if workers is not None and workers < 1:
        raise UserError(f"workers={workers}: expected 1 or more")
    address, joins = os.environ.get(ADDRESS, ""), joined()
    if joins:
        check_address(address)
    settings = SETTINGS | WORKER | ({} if joins else LOOPBACK)
    with _starting, _environment(settings | {"PYTHONPATH": _python_path(joins)}):
        authenticate(joins)
        try:
            import ray
        except ImportError:
            raise UserError(
                "Ray is not installed: run `pip install 'ray[data,default,train]>=2.60,<2.61'`, "
                "or give runner=inprocess"
            ) from None
        if not ray.is_initialized():
            quiet()
            try:
                with muted(), signals_kept():
                    _join() if joins else lastingly(lambda: _start_local(workers))
            except (ConnectionError, ray.exceptions.AuthenticationError) as error:
                where = f"the Ray cluster at RAY_ADDRESS={address}" if joins else "a local Ray"
                why = one_line(error.__cause__ or error).partition(" Last connection error: Traceback")[0][:200]
                raise UserError(
                    f"{where} cannot be reached ({why}); is it up, and is RAY_AUTH_TOKEN its token?"
                ) from None
            except Exception as error:
                if not joins:
                    check_start()
                if not _too_slow(error):
                    raise
                raise GristmillError(
                    "a local Ray did not start in time, which happens on a very busy machine; the same "
                    "command tries again, and runner=inprocess works without Ray"
                ) from None
            _watch()
        quiet()
    cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
    return cpus if workers is None else min(workers, cpus)


def joined() -> bool:
    """Return whether there is a cluster to join, so that none is started."""
    return os.environ.get(ADDRESS, "local") not in ("", "local")


def before_stop(call: Callable[[], object]) -> None:
    """Have something called before this process leaves Ray by :func:`stop` or at its exit, in place of earlier ones."""
    global _before_stop
    atexit.unregister(_before_stop)
    _before_stop = call
    atexit.register(call)  # after Ray's own, so that it is called before


def stop() -> None:
    """Leave Ray; a local one that this process started ends with it."""
    _before_stop()
    if _guard is not None:
        _guard.end()
    if gone():
        kill()  # else Ray would wait for what is left, or end this process
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()


def kill() -> None:
    """Kill all processes of a local Ray that this process started, at once; this process can only end thereafter."""
    janitor.end_processes({owner.process()})


def gone() -> bool:
    """Return whether the Ray of this process was found to be gone."""
    return _guard is not None and _guard.gone


def started() -> bool:
    """Return whether this process has started or joined a Ray."""
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Raise :class:`~gristmill.cluster.guard.RayGone` for what is only a consequence of Ray being gone."""
    try:
        yield
    except (GristmillError, GeneratorExit):
        raise
    except BaseException as error:
        check(error)
        raise


def check(error: BaseException) -> None:
    """Raise :class:`~gristmill.cluster.guard.RayGone` if Ray is gone, of which an error may be the consequence."""
    if _guard is not None:
        _guard.check(error)


def _watch() -> None:
    """Look after the Ray that was started or joined."""
    global _guard
    if _guard is not None:
        _guard.end()
    _guard = Guard(kill)


def _start_local(workers: int | None) -> None:
    import ray
    from ray._common.utils import get_default_ray_temp_dir
    from ray._private import ray_constants

    temp = Path(get_default_ray_temp_dir())
    janitor.clean(temp)
    # Ray reads the variable when it is loaded, which may have happened already.
    ray_constants.ENABLE_RAY_CLUSTER = os.environ[next(iter(LOOPBACK))] == "1"
    for tries_left in reversed(range(TRIES)):
        port = _dashboard_port()
        spill = spill_folder()
        claim = janitor.claim(temp)
        try:
            with _environment({DASHBOARD: f"http://127.0.0.1:{port}", janitor.MARK: claim.driver}):
                started: Any = ray.init(
                    address="local",
                    num_cpus=workers,
                    include_dashboard=None,
                    dashboard_host="127.0.0.1",
                    dashboard_port=port,
                    object_store_memory=_object_store(),
                    object_spilling_directory=spill,
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                )
        except Exception as error:
            if not tries_left or not _too_slow(error):
                raise
            janitor.end_processes({claim.driver})  # what has started, late
            ray.shutdown()
            continue
        spilled = [] if spill is None else [os.path.join(spill, janitor.SPILLED + started.address_info["node_id"])]
        claim.began([started.address_info["session_dir"], *spilled])
        if started.dashboard_url or not tries_left:
            return
        ray.shutdown()  # another process may have taken the port; everything else works without a dashboard


def _too_slow(error: BaseException) -> bool:
    """Return whether Ray gave up waiting for its own processes.

    A raylet aborts when its agent, a Python process, takes over 15 s to start (ray-project/ray#65983), as on a busy
    machine or from a slow disk.
    """
    return "timed out during startup" in str(error)  # has no class of its own


def _dashboard_port() -> int:
    """Return the port of the dashboard: the first free one of those that Ray itself would try, or any."""
    for port in (*DASHBOARD_PORTS, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise GristmillError("there is no free port on 127.0.0.1 for the dashboard of a local Ray")


def _join() -> None:
    import ray

    # A submitted job has its environment from the submission; Ray rejects variables set twice.
    submitted = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    variables = WORKER | processor.variables(processor.level())
    variables |= {name: os.environ[name] for name in ("PYTHONPATH", ARROW_POOL)}
    address = os.environ[ADDRESS]
    if address != "auto" and "://" not in address:
        variables[ADDRESS] = address
    on_path = {os.path.realpath(part) for part in variables["PYTHONPATH"].split(os.pathsep)}
    own = {name: path for name, path in own_modules().items() if os.path.realpath(path.parent) not in on_path}
    with answering(address), packed_modules({} if submitted else own) as folder:
        modules = {"py_modules": [str(folder / path.name) for path in own.values()]} if own else {}
        ray.init(
            runtime_env=None if submitted else {"env_vars": variables, **modules},
            logging_level=logging.ERROR,
            log_to_driver=False,
        )


def authenticate(joins: bool) -> None:
    """Choose the authentication token explicitly; Ray never starts without one.

    A local Ray without a configured token gets a random one, kept in memory.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "token")
    if mode != "token":
        raise UserError(
            f"RAY_AUTH_MODE is {mode!r}: anyone who reaches the cluster could run code; "
            "expected 'token', or leave it unset"
        )
    known = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    known = known or (Path.home() / ".ray" / "auth_token").exists()
    if not known and not joins:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        known = True
    if known:
        os.environ["RAY_AUTH_MODE"] = "token"
        if "ray" in sys.modules and not sys.modules["ray"].is_initialized():
            from ray._raylet import Config  # type: ignore[attr-defined]  # missing in its stub

            # Ray reads the mode when it is loaded, which may have happened already; Ray itself sets it this way.
            Config.initialize("")


def _object_store() -> int:
    """Return the size of the object store in bytes: 30 % of memory or /dev/shm, within limits."""
    import shutil

    import psutil

    room = psutil.virtual_memory().available
    if os.path.isdir("/dev/shm"):
        room = min(room, shutil.disk_usage("/dev/shm").free)
    return max(OBJECT_STORE_LEAST, min(OBJECT_STORE_MOST, int(0.3 * room)))


def spill_folder() -> str | None:
    """Return the folder for spilled objects; ``None`` leaves it to Ray."""
    folder = os.environ.get(SPILL)
    if not folder:
        return None
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UserError(f"{SPILL}={folder}: cannot be created ({error.strerror}); expected a folder") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{SPILL}={folder}: cannot be written; expected a writable folder")
    return os.path.abspath(folder)


def _python_path(joins: bool) -> str:
    """Return the path on which workers find this package; empty for a local Ray if it is installed.

    A local Ray finds the user's modules in their place; to a joined cluster they are uploaded.
    """
    given = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    first = [str(ROOT)] if joins or not _installed() else []
    own = [] if joins else [str(path.parent) for path in own_modules().values()]
    return os.pathsep.join(dict.fromkeys([*first, *given, *own]))


def _installed() -> bool:
    """Return whether any process of this environment imports this package, whatever its working folder."""
    try:
        package = metadata.distribution("gristmill")
    except metadata.PackageNotFoundError:
        return False
    origin = json.loads(package.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        return url2pathname(urlparse(origin["url"]).path) == str(ROOT)
    return Path(str(package.locate_file("gristmill"))).resolve() == ROOT / "gristmill"


def quiet() -> None:
    """Silence Ray's own output: relevant events reach the user as progress or errors."""
    import ray

    ray._private.worker._worker_logs_enabled = False  # no setting disables its lines about lost workers
    for name in ("ray", "ray.data", "ray.train", "ray.tune", "ray._private", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"ray\b.*")


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables while Ray starts, so that its processes inherit them; the user's values are kept."""
    before = {name: os.environ.get(name) for name in variables}
    for name, value in variables.items():
        if before[name] is None or name in ("PYTHONPATH", DASHBOARD, janitor.MARK):
            os.environ[name] = value
    try:
        yield
    finally:
        for name in variables.keys() & {"PYTHONPATH", DASHBOARD, janitor.MARK, *LOOPBACK}:
            del os.environ[name]
            os.environ |= {name: old} if (old := before[name]) is not None else {}
