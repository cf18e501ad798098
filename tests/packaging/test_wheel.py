"""A wheel alone, with no checkout on the path, runs a recipe of the project in-process and on Ray."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

ROOMS = ("shards", "models", "actors", "cluster", "pipelines")
SMALL = [
    "seeds=[0]",
    "corpus={labelled_records: 12, unlabelled_records: 24, test_records: 8, sampling_rate: 8000, shard: {rows: 8}}",
    "noise={generated: 8, seconds: 3, rooms: {count: 4}, labelled_copies: 2}",
    "features={n_mels: 40}",
    "systems={model: {dim: 16, layers: 1, channels: 4}, teacher: {epochs: 1}, multicondition: {epochs: 1}, "
    "hard_labels: {epochs: 1}, student: {epochs: 1}, gold: {epochs: 1}, sequence: {epochs: 1}}",
    "sweep={k: [], temperature: []}",
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the checkout; it is built from a copy, since setuptools leaves its own files beside what it packs."""
    pytest.importorskip("setuptools")
    copy, made = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("wheel")
    skipped = shutil.ignore_patterns("__pycache__", ".*", "build", "*.egg-info", "out", "runs", "tests", "benchmarks")
    shutil.copytree(ROOT, copy, symlinks=True, ignore=skipped, dirs_exist_ok=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "-q", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--no-index", str(copy), "-w", str(made)], check=True, timeout=280)
    (path,) = made.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has the wheel, and all else from this environment but for what is installed there for editing."""
    venv = tmp_path_factory.mktemp("env")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True, timeout=120)
    path = venv / "bin" / "python"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(venv)}))
    # A folder that a .pth file names is searched; the .pth files in it, which have the checkout found, are not read.
    (site / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(path), "install", "-q"]
    subprocess.run([*pip, "--no-deps", "--no-index", "--ignore-installed", str(wheel)], check=True, timeout=200)
    return path


def test_a_wheel_has_all_rooms_and_their_files(wheel: Path) -> None:
    files = set(zipfile.ZipFile(wheel).namelist())
    for room in (*ROOMS, "configs"):
        there = {
            f"gristmill/{room}/{path.relative_to(ROOT / room).as_posix()}"
            for path in (ROOT / room).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert there
        assert there <= files
    assert {name.partition("/")[0] for name in files if ".dist-info" not in name} == {"gristmill"}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("how", [["runner=inprocess"], ["runner=ray", "workers=2"]], ids=["inprocess", "ray"])
def test_a_wheel_runs_a_recipe_beside_files_called_as_its_rooms(python: Path, tmp_path: Path, how: list[str]) -> None:
    for room in ROOMS:
        (tmp_path / f"{room}.py").write_text("raise ImportError('not this one')\n")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTHON"))}
    env |= {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}

    def call(*words: str) -> str:
        done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=800)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = call(str(python), "-c", "import gristmill; print(gristmill.__file__)").strip()
    assert Path(where).is_relative_to(python.parent.parent)
    call(str(python.parent / "gristmill"), "run", "distill", *SMALL, *how, "out=out", "-q")
    # By the name that the file has in a checkout, and as a module: everything is there already.
    assert "nothing to do" in call(
        str(python), "-m", "gristmill", "run", "configs/distill.yaml", *SMALL, *how, "out=out"
    )
    made = json.loads((tmp_path / "out" / "run.json").read_text())["made"]
    assert any(entry["name"] == "student" for entry in made)
