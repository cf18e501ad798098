"""The Ray session: started or joined in one place, quiet and never without token authentication."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import socket
import sys
import warnings
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import gristmill
from gristmill.cluster.packing import packed_modules
from gristmill.shards.errors import GristmillError, UserError, one_line
from gristmill.shards.names import own_modules
from gristmill.shards.process import ALLOCATOR, ARROW_POOL

ROOT = Path(gristmill.__file__).resolve().parent.parent  # of the checkout, or what a wheel was installed into

# One thread in each worker: workers are many, and sums over threads come in another order on another machine (law 1).
# Arrow settles its allocator as it is loaded, which Ray may do before a stage is built.
WORKER = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ARROW_NUM_THREADS"), "1"),
    ARROW_POOL: ALLOCATOR,
}
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is told to anyone
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # how often a group is looked at: its end waits for it
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # else its C++ parts write into the terminal what is of no use there
}
# Of a cluster's head and workers: a machine that is cut off is given up after half a minute, not three. A Ray of one
# machine does without: there is none to give up, and a busy one may well be deaf for so long.
HEALTH = {
    "RAY_health_check_initial_delay_ms": "5000",
    "RAY_health_check_period_ms": "3000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "4",
}
# A Ray of our own listens on loopback only. The variable says so for systems other than Linux, and works there too.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
# Where processes of Ray ask for the state of its actors. Without either they ask the cluster that was last started on
# the machine, which may be another, or gone: then each training ends 12 s late, and who guards its resources is misled.
DASHBOARD, ADDRESS = "RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"
DASHBOARD_PORTS = range(8265, 8315)
SPILL = "GRISTMILL_SPILL"  # the environment variable with the folder for what the object store cannot hold
OBJECT_STORE_LEAST = 256 << 20
OBJECT_STORE_MOST = 8 << 30


def start(workers: int | None = None) -> int:
    """Start a local Ray, or join the one that ``RAY_ADDRESS`` names, and return the CPUs that may be used.

    ``workers`` is how many CPUs a local Ray shows, also more than the machine has; in a Ray that runs already it is
    the most CPUs used of it. A local Ray listens on loopback only; its object store takes a part of the memory that is
    free, and what it cannot hold goes to the folder ``GRISTMILL_SPILL`` (or below ``RAY_TMPDIR``), until the disk is 95
    % full. The rest of Ray's settings come from the environment as usual (``RAY_AUTH_MODE``, ``RAY_AUTH_TOKEN``, ...).

    Raises:
        UserError: Ray is not installed, the cluster cannot be joined, or token authentication is turned off.
    """
    if workers is not None and workers < 1:
        raise UserError(f"workers={workers}: expected a number of workers of 1 or more")
    address, joins = os.environ.get(ADDRESS), joined()
    settings = SETTINGS | WORKER | ({} if joins else LOOPBACK)
    with _environment(settings | {"PYTHONPATH": _python_path(joins)}):
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
                with _muted():
                    _join() if joins else _start_local(workers)
            except (ConnectionError, ray.exceptions.AuthenticationError) as error:
                where = f"the Ray cluster at RAY_ADDRESS={address}" if joins else "a local Ray"
                raise UserError(
                    f"{where} cannot be reached ({one_line(error)[:200]}); is it up, and is RAY_AUTH_TOKEN its token?"
                ) from None
            except Exception as error:
                if "timed out during startup" not in str(error):  # of no class of its own
                    raise
                raise GristmillError(
                    "a local Ray did not come up in its time, as happens on a machine that is very busy; the same "
                    "command tries again, and runner=inprocess does without"
                ) from None
        quiet()
    cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
    return cpus if workers is None else min(workers, cpus)


def joined() -> bool:
    """Tell whether there is a cluster to join, so that none is started."""
    return os.environ.get(ADDRESS, "local") not in ("", "local")


def stop() -> None:
    """Leave Ray; a local one that this process started ends with it."""
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()


def _start_local(workers: int | None) -> None:
    import ray
    from ray._private import ray_constants

    # Ray reads the variable when it is loaded, which may have been before.
    ray_constants.ENABLE_RAY_CLUSTER = os.environ[next(iter(LOOPBACK))] == "1"
    for tries_left in (1, 0):
        port = _dashboard_port()
        with _environment({DASHBOARD: f"http://127.0.0.1:{port}"}):
            started = ray.init(
                address="local",
                num_cpus=workers,
                include_dashboard=None,
                dashboard_host="127.0.0.1",
                dashboard_port=port,
                object_store_memory=_object_store(),
                object_spilling_directory=spill_folder(),
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
        if started.dashboard_url or not tries_left:
            return
        ray.shutdown()  # another process may have taken the port meanwhile; without a dashboard all else works


def _dashboard_port() -> int:
    """Return the port of the dashboard: the first that is free of those that Ray itself would try, or any."""
    for port in (*DASHBOARD_PORTS, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise GristmillError("there is no free port on 127.0.0.1 for the dashboard of a local Ray")


def _join() -> None:
    import ray

    # A submitted job has its environment from the submission; Ray refuses the same variable set twice.
    submitted = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    variables = WORKER | {name: os.environ[name] for name in ("PYTHONPATH", ARROW_POOL)}
    address = os.environ[ADDRESS]
    if address != "auto" and "://" not in address:
        variables[ADDRESS] = address
    on_path = {os.path.realpath(part) for part in variables["PYTHONPATH"].split(os.pathsep)}
    own = {name: path for name, path in own_modules().items() if os.path.realpath(path.parent) not in on_path}
    with packed_modules({} if submitted else own) as folder:
        modules = {"py_modules": [str(folder / path.name) for path in own.values()]} if own else {}
        ray.init(
            runtime_env=None if submitted else {"env_vars": variables, **modules},
            logging_level=logging.ERROR,
            log_to_driver=False,
        )


def authenticate(joins: bool) -> None:
    """Choose the token explicitly; nothing is opened without one.

    A local Ray that nobody has a token for gets one of its own, kept in memory.
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
            from ray._raylet import Config  # type: ignore[attr-defined]  # its stub leaves it out

            # Ray reads the mode when it is loaded, which may have been before; so it does itself, where it turns it on.
            Config.initialize("")


def _object_store() -> int:
    """Return the bytes of the object store: 30 % of what memory and /dev/shm hold, within limits."""
    import shutil

    import psutil

    room = psutil.virtual_memory().available
    if os.path.isdir("/dev/shm"):
        room = min(room, shutil.disk_usage("/dev/shm").free)
    return max(OBJECT_STORE_LEAST, min(OBJECT_STORE_MOST, int(0.3 * room)))


def spill_folder() -> str | None:
    """Return the folder for what the object store cannot hold; ``None`` leaves it to Ray."""
    folder = os.environ.get(SPILL)
    if not folder:
        return None
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UserError(f"{SPILL}={folder}: cannot be made ({error.strerror}); expected a folder") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{SPILL}={folder}: cannot be written; expected a folder that can")
    return os.path.abspath(folder)


def _python_path(joins: bool) -> str:
    """Return the path on which workers find this package; a local Ray needs none where it is installed.

    The user's own modules are found by a local Ray where they lie; to a cluster that is joined they are sent.
    """
    given = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    first = [str(ROOT)] if joins or not _installed() else []
    own = [] if joins else [str(path.parent) for path in own_modules().values()]
    return os.pathsep.join(dict.fromkeys([*first, *given, *own]))


def _installed() -> bool:
    """Tell whether any process of this environment imports the same package, wherever it starts."""
    try:
        package = metadata.distribution("gristmill")
    except metadata.PackageNotFoundError:
        return False
    origin = json.loads(package.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        return url2pathname(urlparse(origin["url"]).path) == str(ROOT)
    return Path(str(package.locate_file("gristmill"))).resolve() == ROOT / "gristmill"


def quiet() -> None:
    """Keep Ray's own lines off the terminal: what matters reaches the user as progress or as an error."""
    import ray

    ray._private.worker._worker_logs_enabled = False  # no setting turns off its lines about lost workers
    for name in ("ray", "ray.data", "ray.train", "ray.tune", "ray._private", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"ray\b.*")


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables while Ray starts, so that its processes inherit them; settings that the user made stay."""
    before = {name: os.environ.get(name) for name in variables}
    for name, value in variables.items():
        if before[name] is None or name in ("PYTHONPATH", DASHBOARD):
            os.environ[name] = value
    try:
        yield
    finally:
        for name in variables.keys() & {"PYTHONPATH", DASHBOARD, *LOOPBACK}:
            del os.environ[name]
            os.environ |= {name: old} if (old := before[name]) is not None else {}


@contextlib.contextmanager
def _muted() -> Iterator[None]:
    """Send to nowhere what Ray's C++ parts write on standard error as they start; errors come as exceptions."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
