"""Damaged files of every kind of source: a listing ends without an error, and has the records of the other files."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.actors.sources.fuzz import FORMATS, fuzz

MOST_GROWN = 500  # MB
MUTATIONS = 400  # of each format: 30,000 of all


@pytest.mark.parametrize("name", ["clinc150", "lhotse-gz", "po", "tar", "text-parquet", "tmx"])
def test_a_damaged_file_costs_itself(name: str) -> None:
    assert fuzz(name, 25, seed=1)["unlisted"]


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_many_damages_take_no_memory(name: str) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.actors.sources.fuzz",
        name,
        str(MUTATIONS),
        "15",
    ]  # by itself: a decoder may crash
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["grown_mb"] < MOST_GROWN
