"""Sums come out the same however many threads the machine offers (law 1)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gristmill.shards import canonical, process


def inverse() -> np.ndarray:
    """Return an inverse that OpenBLAS shares out among threads, each of which adds in an order of its own."""
    given = np.random.default_rng(0).standard_normal((1000, 100))
    return np.linalg.inv(given.T @ given)


class Invert:
    """Adds nothing; keeps what it computed."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Work on one batch."""
        self.made = canonical.sha256(inverse().tobytes())
        return batch


def invert(settings: Any, context: Any) -> dict[str, Any]:
    """Fit an inverse."""
    return {"files": {"inverse": canonical.sha256(inverse().tobytes()).encode()}}


def test_inverses_of_stages_and_trainings_are_equal_on_one_thread_and_on_several(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from gristmill.cluster.inprocess import InProcessContext\n"
        "from gristmill.shards.artifact import get_artifact\n"
        "from gristmill.shards.job import TrainJob\n"
        "from gristmill.shards.stage import Stage\n"
        "url = sys.argv[2]\n"
        "if sys.argv[1] == 'stage':\n"
        "    actor = Stage('invert', 'tests.shards.test_process:Invert').build(0)\n"
        "    actor(None)\n"
        "    print(actor.made)\n"
        "else:\n"
        "    TrainJob('invert', 'tests.shards.test_process:invert').run(url, InProcessContext(url))\n"
        "    print(get_artifact(url).read('inverse').decode())\n"
    )
    found = set()
    for what in ("stage", "training"):
        for threads in ("1", "2", "4"):
            environment = os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
            command = [sys.executable, "-c", code, what, str(tmp_path / f"{what}-{threads}")]
            ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            found.add(ran.stdout.strip())
    assert len(found) == 1, found


# As where Arrow was loaded before.
PREPARED = "import pyarrow as pa; from gristmill.shards import process; process.prepare(); "
COMMAND_LINE = (
    "import contextlib, sys; from gristmill.pipelines.command import cli; sys.argv[1:] = ['--version']\n"
    "with contextlib.suppress(SystemExit): cli.main()\n"
    "import pyarrow as pa; "
)
USED = (
    "import io, pyarrow.parquet as pq; pq.write_table(pa.table({'a': [bytes(1 << 20)]}), io.BytesIO()); "
    "pools = [getattr(pa, f'{name}_memory_pool')() for name in pa.supported_memory_backends()]; "
    "print(*(pool.backend_name for pool in pools if pool.max_memory() > 1 << 20))"
)


@pytest.mark.parametrize(
    ("code", "chosen", "expected"),
    [
        (PREPARED + "print(pa.default_memory_pool().backend_name)", None, "system"),
        (PREPARED + USED, "mimalloc", "mimalloc"),
        (COMMAND_LINE + USED, None, "system"),  # what writes Parquet asks for memory by itself
        (COMMAND_LINE + USED, "mimalloc", "mimalloc"),
    ],
)
def test_arrow_gives_memory_back_unless_its_user_chose_an_allocator(
    code: str, chosen: str | None, expected: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != process.ARROW_POOL}
    environment |= {process.ARROW_POOL: chosen} if chosen else {}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == expected
