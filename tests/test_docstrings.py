"""The examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib
import sys
from pathlib import Path

import pytest

from gristmill.shards import names

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("shards", "models", "actors", "cluster", "pipelines")
MODULES = sorted(
    ".".join(("gristmill", *path.relative_to(ROOT).with_suffix("").parts))
    for room in ROOMS
    for path in (ROOT / room).rglob("*.py")
    if ">>> " in path.read_text()
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Reading a config has modules looked for in the current folder.
    monkeypatch.setattr(names, "_folders", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted
    assert not found.failed
