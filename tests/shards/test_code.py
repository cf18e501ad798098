"""The digest of code: another when what it does may be another, and the same for everything else."""

from __future__ import annotations

import importlib
import itertools
import sys
from pathlib import Path

import pytest

from gristmill.shards import code
from gristmill.shards.code import changed, code_of

FILTERS = '''
from helpers import shortest, unused
import helpers as more
LIMIT = 3
OTHER = 4

def keep(text, *, least=LIMIT):
    """Say whether it is kept."""
    return len(text) >= shortest(least)  # by letters

def another(text):
    return OTHER

class Base:
    def call(self):
        return more.factor

class Actor(Base):
    """An actor."""

    size: int = 3
    """Its size."""

    def __call__(self, batch):
        return batch
'''
HELPERS = """
factor = 2

def shortest(least):
    return least

def unused():
    return 0
"""

NUMBERS = itertools.count()


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write the modules, and return digests of `keep` and `Actor`."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def digests(filters: str = FILTERS, helpers: str = HELPERS) -> dict[str, str]:
        number = next(NUMBERS)  # names of their own, since Python keeps modules
        (tmp_path / f"filters{number}.py").write_text(filters.replace("helpers", f"helpers{number}"))
        (tmp_path / f"helpers{number}.py").write_text(helpers)
        importlib.invalidate_caches()
        names = {name: f"filters{number}:{name}" for name in ("keep", "Actor")}
        return code_of(names)["digests"]

    return digests


def test_what_does_not_matter_is_in_no_digest(lab) -> None:
    first = lab()
    assert set(first) == {"keep", "Actor"}
    relaxed = FILTERS.replace("# by letters", "").replace("Say whether", "Tell if").replace("Its size", "Size")
    relaxed = relaxed.replace(
        "return len(text) >= shortest(least)", "\n    return (len(text)\n        >= shortest(least))"
    )
    unrelated = relaxed.replace("return OTHER", "return OTHER + 1").replace("OTHER = 4", "OTHER = 5")
    assert lab(relaxed) == lab(unrelated) == first
    assert lab(unrelated, HELPERS.replace("return 0", "return 1"))["keep"] == first["keep"]


@pytest.mark.parametrize(
    ("stage", "old", "new"),
    [
        ("keep", ">=", ">"),
        ("keep", "LIMIT = 3", "LIMIT = 4"),
        ("keep", "least=LIMIT", "least=2"),
        ("Actor", "size: int = 3", "size: int = 4"),
        ("Actor", "return more.factor", "return 2 * more.factor"),
        ("Actor", "return batch", "return None"),
    ],
)
def test_what_does_is(lab, stage: str, old: str, new: str) -> None:
    first, other = lab(), lab(FILTERS.replace(old, new))
    assert [name for name in first if first[name] != other[name]] == [stage]


def test_other_modules_of_the_users_count(lab) -> None:
    first = lab()
    assert lab(helpers=HELPERS.replace("return least", "return least + 1"))["keep"] != first["keep"]
    assert lab(helpers=HELPERS.replace("factor = 2", "factor = 3"))["Actor"] != first["Actor"]


def test_code_without_a_source_has_no_digest() -> None:
    assert code_of({"dumps": "itertools:chain", "gone": "no.such.module:name"})["digests"] == {}


def test_changes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"keep": "tests.pipelines.tiny:upper", "own": "gristmill.shards.canonical:digest"}
    kept = code_of(names)
    assert changed(kept, names) == changed(None, names) == changed({"digests": 3}, names) == []
    other = {**kept, "digests": {name: value[:-1] + "x" for name, value in kept["digests"].items()}}
    assert changed(other, names) == ["keep"]  # this package raises its versions itself
    monkeypatch.setattr(code, "installed", lambda: "99")
    assert changed(other, names) == ["keep", "own"]
    python = {name: value.replace(f"{sys.version_info[0]}.", "2.") for name, value in other["digests"].items()}
    assert changed({**other, "digests": python}, names) == []
