"""`gristmill config`, and the page of all settings."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from gristmill.pipelines.command import settings_page
from gristmill.pipelines.command.settings_page import COMMAND, NAMES, PAGE
from gristmill.pipelines.describing import Described
from gristmill.shards import names
from tests.pipelines.own_code import written


@pytest.fixture(scope="module")
def described() -> dict[str, tuple[Described, ...]]:
    return settings_page.described()


def test_the_page_is_that_of_the_classes(described) -> None:
    assert PAGE.read_text() == settings_page.page(described), f"docs/settings.md is not up to date: run `{COMMAND}`"
    assert NAMES.read_text() == settings_page.names(described), f"{NAMES} is not up to date: run `{COMMAND}`"


def test_each_setting_says_what_it_is(described) -> None:
    every = [one for settings in described.values() for top in settings for one in top.walk()]
    assert len(every) > 300
    assert [one.path for one in every if not one.doc] == [], "a setting without a text below it"
    assert [one.path for one in every if "typing" in one.kind or "<" in one.kind or "None" in one.kind] == []


def test_what_a_file_sets_stands_beside_the_default(gristmill) -> None:
    shown = gristmill("config", "distill", "corpus.test_records=7").stdout
    lines = [line.strip() for line in shown.splitlines()]
    assert "labelled_records: 600   (whole number, at least 1; default 400)" in lines
    assert "test_records: 7   (whole number, at least 1; default 240)" in lines
    assert "unlabelled_records: 2400   (whole number, at least 1)" in lines
    assert "Requests and digits: number of utterances in the annotated part." in lines
    assert "Of all recipes" in lines
    assert any(line.startswith("runner: ray   (ray or inprocess)") for line in lines)


def test_a_section_alone(gristmill) -> None:
    shown = gristmill("config", "distill", "systems.student", "corpus.filters").stdout.splitlines()
    assert "systems.student:" in shown
    assert "  epochs: 12.0   (number, above 0; or null; default 8.0)" in shown
    assert "corpus.filters: []   (list of sections)" in shown
    assert "  actor: (no default)   (text)" in shown
    assert not any("test_records" in line for line in shown)
    refused = gristmill("config", "distill", "systems.studnt")
    assert refused.exit_code == 2
    assert "systems.studnt: distill has no such setting, did you mean 'systems.student'?" in refused.stderr
    assert "did you mean 'systems.ranks'?" in gristmill("config", "distill", "ranks").stderr


def test_a_setting_of_a_section_that_is_null_has_no_value(gristmill) -> None:
    shown = gristmill("config", "distill", "systems.gold=null", "systems.gold.epochs").stdout.splitlines()
    place = shown.index("systems.gold is null; if it is set:")
    assert shown[place + 2].startswith("systems.gold.epochs: 1.0")
    assert "is null" not in gristmill("config", "distill", "systems.student.epochs").stdout


def test_as_json(gristmill) -> None:
    told = json.loads(gristmill("config", "rerank", "--json").stdout)
    assert told["recipe"] == "rerank"
    corpus = next(one for one in told["settings"] if one["path"] == "corpus")
    records = next(one for one in corpus["settings"] if one["path"] == "corpus.records")
    assert {key: records[key] for key in ("kind", "value")} == {"kind": "whole number, at least 1", "value": 4000}
    assert records["default"] != 4000
    assert records["doc"]


def test_a_recipe_without_a_file(gristmill) -> None:
    shown = gristmill("config", "bootstrap_lm", "ngrams.order").stdout
    assert shown.startswith("Settings of the recipe bootstrap_lm.")
    assert "ngrams.order: 4" in shown
    assert gristmill("config", "bootstrap_lm", "seed=1").exit_code == 2
    assert "did you mean 'distill'?" in gristmill("config", "distil").stderr


def test_a_recipe_of_ones_own(gristmill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_folders", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    written(tmp_path)
    with (tmp_path / "lab" / "hello.py").open("a") as file:
        file.write('\n\nclass Config(Settings):\n    least: int = 3\n    """Letters of a name."""\n')
    try:
        shown = gristmill("config", "hello.yaml", "least=5").stdout
        assert "least: 5   (whole number; default 3)\n    Letters of a name." in shown
        assert "least: 3   (whole number)" in gristmill("config", "lab.hello").stdout
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "lab"]:
            del sys.modules[name]
