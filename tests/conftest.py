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
from tests.shared import SHARED  # noqa: E402
from tests.watcher import watch  # noqa: E402
from tests.weed import GRPC, Weed  # noqa: E402

# A shell that starts the tests in the background has interrupts ignored, and so would be all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Tests that share a Ray, and modules that each start some: of either sort one is run at a time. They are the first, as
# they are most of what a process has to do. So are those of compiled kernels: side by side each process would compile
# them all, which takes longer than the tests; others find what these have left on the disk.
_CHAINS = {
    "one Ray": (
        "tests/cluster/test_clean_ray.py",
        "tests/cluster/test_crew.py",
        "tests/cluster/test_diversity_ray.py",
        "tests/cluster/test_exchange_ray.py",
        "tests/cluster/test_laws.py",
        "tests/cluster/test_ngrams_ray.py",
        "tests/cluster/test_processor_ray.py",
        "tests/cluster/test_segments_ray.py",
        "tests/cluster/test_text_selection.py",
        "tests/cluster/test_training.py",
        "tests/cluster/test_translation.py",
    ),
    "a Ray each": (
        "tests/cluster/test_dashboard.py",
        "tests/cluster/test_metrics.py",  # of the same cluster
        "tests/cluster/test_session.py",
        "tests/fault/test_driver.py",
        "tests/fault/test_hang.py",
        "tests/fault/test_ray_gone.py",
        "tests/pipelines/command/test_submit.py",
        "tests/pipelines/test_own_code.py",
    ),
    "kernels": (
        "tests/actors/speech/test_decode.py",
        "tests/actors/text/test_lm_engine.py",
        "tests/models/ngrams/test_store.py",
        "tests/models/speech/test_decode.py",
        "tests/models/speech/test_decoder.py",
        "tests/models/speech/test_personal.py",
        "tests/models/speech/test_rescoring.py",
        "tests/models/speech/test_spotting.py",
        "tests/models/speech/test_word_list.py",
        "tests/models/test_kernels.py",
        "tests/pipelines/command/test_lm.py",
        "tests/pipelines/speech/test_known_words.py",
        "tests/pipelines/speech/test_listed_words.py",
        "tests/pipelines/speech/test_personalise.py",
        "tests/test_docstrings.py",
    ),
}
# Of the others, those that take long come next, so that none of them is left when all else is done.
_LONG = (
    "tests/pipelines/text/test_bootstrap_lm.py",
    "tests/pipelines/requests/test_rerank.py",
    "tests/pipelines/requests/test_expand.py",
    "tests/fault/",
    "tests/pipelines/speech/test_distill.py",
    "tests/pipelines/command/",
    "tests/actors/speech/",
)


def _process_of(nodeid: str) -> str:
    """Return which tests run one after the other: those of a module, and those of a chain.

    A Ray is a dozen processes: where more than two start at once, a small machine is too slow for their time-outs.
    """
    module = nodeid.partition("::")[0]
    return next((name for name, modules in _CHAINS.items() if module in modules), module)


def _place(nodeid: str) -> int:
    """Return how late a test is run."""
    chain = _process_of(nodeid)
    if chain in _CHAINS:
        return list(_CHAINS).index(chain)
    return len(_CHAINS) + next((place for place, begun in enumerate(_LONG) if nodeid.startswith(begun)), len(_LONG))


def pytest_configure() -> None:
    """See to it that nothing is left of what tests start, however their run ends."""
    watch()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes long first, and what shares a Ray in a row."""
    items.sort(key=lambda item: _place(item.nodeid))
    for item in items:
        if "ray_session" in getattr(item, "fixturenames", ()) and _process_of(item.nodeid) != "one Ray":
            raise pytest.UsageError(
                f"{item.nodeid} uses the Ray that tests share: its module has to be in tests/conftest.py"
            )


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """End what tests of a chain shared once others come: a Ray that is idle takes time from all processes."""
    if nextitem is None or _process_of(nextitem.nodeid) != _process_of(item.nodeid):
        SHARED.close()


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
