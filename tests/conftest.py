"""Fixtures shared by all tests: real corpora, and an S3-compatible server."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# As those that tests start: see tests/environment.py
os.environ.setdefault("RAY_worker_niceness", "0")
# Tests start hundreds of Python processes, and a Ray is a dozen. Where the surroundings let Python keep no bytecode, as
# images of containers do, each would compile all that it imports: that is half of the time of all tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

ROOT = Path(__file__).resolve().parent.parent
# Stages of tests are imported by name: here, by processes that tests start, and by Ray's workers, which get this path.
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(ROOT), *(part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part and part != str(ROOT))]
)

import gristmill  # noqa: E402, F401  # before numpy and torch, which it pins
from tests.ports import free_ports  # noqa: E402
from tests.watcher import watch  # noqa: E402
from tests.weed import GRPC, Weed  # noqa: E402

# A shell that starts the tests in the background has interrupts ignored, and so would be all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Tests that share a Ray, or start one each after the other; other modules start one for a few tests only.
_CHAINS = {
    "clusters": ("tests/cluster/",),
    "faults": ("tests/fault/test_driver.py", "tests/fault/test_hang.py", "tests/fault/test_ray_gone.py"),
}


def _process_of(nodeid: str) -> str:
    """Return which tests run one after the other: those of a module, and those of a chain.

    A Ray is a dozen processes: where more than two start at once, a small machine is too slow for their time-outs.
    """
    chain = next((name for name, begun in _CHAINS.items() if nodeid.startswith(begun)), None)
    return chain or nodeid.partition("::")[0]


def pytest_configure() -> None:
    """See to it that nothing is left of what tests start, however their run ends."""
    watch()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the chains be the first: they are most of what a process has to do."""
    items.sort(key=lambda item: _process_of(item.nodeid) not in _CHAINS)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Deal the tests out to processes if several run them (``-n``)."""
    from xdist.scheduler import LoadScopeScheduling

    class ByModule(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _process_of(nodeid)

    config.option.loadscopereorder = False  # which would begin with the modules of the most tests
    return ByModule(config, log)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real corpora: ``$GRISTMILL_DATA``, or ``../shared/data`` beside the project."""
    path = Path(os.environ.get("GRISTMILL_DATA") or ROOT.parent / "shared" / "data")
    if not path.is_dir():
        pytest.skip(f"real data is absent: set GRISTMILL_DATA ({path} is no folder)")
    return path


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a real S3-compatible server for the whole session; its keys are in the environment meanwhile."""
    s3fs = pytest.importorskip("s3fs")
    server = Weed(tmp_path_factory.mktemp("weed"), free_ports(4, partner=GRPC))
    server.start()
    try:
        server.wait("ready")
        with pytest.MonkeyPatch.context() as patch:
            for key, value in server.environment.items():
                patch.setenv(key, value)
            # An instance that an earlier test made under other settings is kept by fsspec, with its endpoint.
            s3fs.S3FileSystem.clear_instance_cache()
            yield server.endpoint
    finally:
        server.kill()  # nothing of it is kept, and its orderly end takes long


@pytest.fixture(scope="session")
def bucket(s3_endpoint: str) -> str:
    """A bucket of the server."""
    import s3fs

    s3fs.S3FileSystem().mkdir("tests")
    return "s3://tests"
