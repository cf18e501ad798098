"""Trainings of every kind, killed at three points, give the bytes of one that ran through: with 1 rank and with 2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("ctranslate2")

from tests.actors.goldens import TRAININGS, make_data
from tests.actors.ranks import Killed, Ranks

# Steps of the three deaths, with 1 rank and with 2; a checkpoint is made every 2 steps, of acoustic models every 4.
POINTS = {
    "acoustic": {1: (6, 10, 15), 2: (6, 10, 13)},
    "translator": {1: (3, 6, 9), 2: (2, 3, 5)},
    "domain": {1: (2, 4, 5), 2: (1, 2, 3)},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("data")
    make_data(made)
    return made


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    with Ranks(2, tmp_path_factory.mktemp("ranks")) as ranks:
        yield ranks


def killed(rank: int, count: int, name: str, root: str, url: str) -> dict[str, Any]:
    """Train after three deaths."""
    for point in POINTS[name][count]:
        with pytest.raises(Killed):
            TRAININGS[name](rank, count, root, url, die_at=point)
    return TRAININGS[name](rank, count, root, url)


def is_the_same(whole: dict[str, Any], again: dict[str, Any]) -> bool:
    return bool(whole["files"]) and whole["files"] == again["files"] and whole["curves"] == again["curves"]


@pytest.mark.parametrize("name", sorted(TRAININGS))
def test_one_rank(name: str, root: Path, tmp_path: Path) -> None:
    whole = TRAININGS[name](0, 1, str(root), str(tmp_path / "whole"))
    assert is_the_same(whole, killed(0, 1, name, str(root), str(tmp_path / "killed")))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TRAININGS))
def test_two_ranks(name: str, two: Ranks, root: Path, tmp_path: Path) -> None:
    whole = two(TRAININGS[name], str(root), str(tmp_path / "whole"))
    assert is_the_same(whole, two(killed, name, str(root), str(tmp_path / "killed")))
