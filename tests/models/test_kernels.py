"""Kernels are kept between processes, not beyond a change of what they call, and work where nothing can be kept."""

import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest

from gristmill.models import kernels

ROOT = Path(__file__).resolve().parents[2]
INNER = """
from numba import types
from numba.extending import intrinsic
from gristmill.models.kernels import kernel

ADDED = {0}

@kernel
def inner(x):
    return x + {0}

@intrinsic
def known(context, x):
    return types.int64(types.int64), lambda target, builder, signature, given: target.get_constant(types.int64, {0})
"""
SLOW = pytest.mark.slow
OUTER = """
from gristmill.models.kernels import kernel
from inner import ADDED, inner, known

@kernel
def outer(x):
    return {0}

print(outer(1), sum(outer.stats.cache_hits.values()))
"""


@pytest.mark.parametrize(
    "used", ["inner(x)", *(pytest.param(one, marks=SLOW) for one in ("x + ADDED", "x + known(x)"))]
)
def test_what_is_kept_is_made_anew_when_what_it_uses_of_another_file_changes(tmp_path, used):
    (tmp_path / "outer.py").write_text(OUTER.format(used))
    folders = os.pathsep.join([str(tmp_path), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": folders, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def run():
        done = subprocess.run([sys.executable, "-c", "import outer"], env=environment, capture_output=True, text=True)
        assert not done.returncode, done.stderr
        return done.stdout.strip()

    (tmp_path / "inner.py").write_text(INNER.format(1))
    assert run() == "2 0"
    assert run() == "2 1"
    (tmp_path / "inner.py").write_text(INNER.format(10))
    os.utime(tmp_path / "inner.py", (0, 0))
    assert run() == "11 0"


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
