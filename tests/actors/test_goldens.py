"""Trainings give the bytes that they gave; a version that changes them is kept by `python -m tests.actors.goldens`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytest.importorskip("ctranslate2")

from tests.actors.goldens import KEPT, TRAININGS, digests, machine, make_data
from tests.actors.ranks import Ranks

KEEP = json.loads(KEPT.read_text())


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("data")
    make_data(made)
    return made


here = pytest.mark.skipif(machine() != KEEP["machine"], reason="the digests are of another processor, torch or numpy")


@here
@pytest.mark.parametrize("name", sorted(TRAININGS))
def test_a_training_gives_the_bytes_it_gave(name: str, root: Path, tmp_path: Path) -> None:
    assert digests(TRAININGS[name](0, 1, str(root), str(tmp_path))) == KEEP["digests"][name]


@here
@pytest.mark.slow
def test_with_two_ranks_too(root: Path, tmp_path: Path) -> None:
    with Ranks(2, tmp_path) as two:
        for name, do in TRAININGS.items():
            assert digests(two(do, str(root), str(tmp_path / name))) == KEEP["digests"][f"{name} x2"]
