"""Kernels are kept between processes, not beyond a change of what they call, and work where nothing can be kept."""

import os
import subprocess
import sys
from pathlib import Path

import numba

from gristmill.models import kernels

ROOT = Path(__file__).resolve().parents[2]
INNER = """
from gristmill.models.kernels import kernel

@kernel
def inner(x):
    return x + {0}
"""
OUTER = """
from gristmill.models.kernels import kernel
from inner import inner

@kernel
def outer(x):
    return 2 * inner(x)

print(outer(1), sum(outer.stats.cache_hits.values()))
"""


def test_what_is_kept_is_made_anew_when_a_function_that_it_calls_changes(tmp_path):
    (tmp_path / "outer.py").write_text(OUTER)
    folders = os.pathsep.join([str(tmp_path), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": folders, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def run():
        done = subprocess.run([sys.executable, "-c", "import outer"], env=environment, capture_output=True, text=True)
        assert not done.returncode, done.stderr
        return done.stdout.strip()

    (tmp_path / "inner.py").write_text(INNER.format(1))
    assert run() == "4 0"
    assert run() == "4 1"
    (tmp_path / "inner.py").write_text(INNER.format(10))
    os.utime(tmp_path / "inner.py", (0, 0))
    assert run() == "22 0"


def test_a_kernel_works_where_no_cache_can_be_written(monkeypatch):
    def njit(*, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available for file")
        return numba.njit(**options)

    monkeypatch.setattr(kernels, "njit", njit)

    @kernels.kernel
    def twice(x):
        return 2 * x

    assert twice(4) == 8
    assert not kernels.is_kept(twice)


def test_numba_is_imported_only_when_something_is_searched():
    code = (
        "import sys, gristmill.models.speech.decoder, gristmill.actors.speech.decode; assert 'numba' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}).returncode == 0
