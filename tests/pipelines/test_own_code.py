"""A recipe, an actor and a filter of the user's own work by their names, from a folder outside the checkout."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gristmill.pipelines.command.launch import carry_out
from gristmill.pipelines.config import load
from gristmill.pipelines.progress import RunProgress
from gristmill.shards import names
from gristmill.shards.dataset import open_sealed
from gristmill.shards.errors import UserError
from tests.conftest import ROOT
from tests.environment import without_ray
from tests.pipelines.own_code import written


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a package, a single file, and files that are called as rooms are."""
    return written(tmp_path)


def call(cwd: Path, *words: str, command: str = "run") -> subprocess.CompletedProcess[str]:
    env = without_ray()
    env |= {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    line = [sys.executable, "-P", "-m", "gristmill", command, *words]
    return subprocess.run(line, cwd=cwd, env=env, capture_output=True, text=True, timeout=280)


def digests(out: Path) -> dict[str, str]:
    return {made["name"]: made["digest"] for made in json.loads((out / "run.json").read_text())["made"]}


def test_a_recipe_of_ones_own_is_run_in_process_and_on_ray(place: Path) -> None:
    pytest.importorskip("ray")
    elsewhere = place / "elsewhere"  # the config's folder is not the current one
    elsewhere.mkdir()
    made = []
    for words in (["runner=inprocess"], ["runner=ray", "workers=2", "out=../out-ray"]):
        done = call(elsewhere, "../hello.yaml", *words, "-q")
        assert done.returncode == 0, done.stdout + done.stderr
    for out in (elsewhere / "out", place / "out-ray"):
        (folder,) = (out / "greeted").iterdir()
        sealed = open_sealed(str(folder))
        assert next(sealed.tables())["greeting"][0].as_py() == "hello xxx"
        assert sealed.seal["reasons"] == {"TooShort: too short": 2}
        made.append(digests(out))
    assert made[0] == made[1]


def test_a_recipe_in_a_file_beside_the_config(place: Path) -> None:
    (place / "mine.yaml").write_text("recipe: one_recipe\nout: out\nrunner: inprocess\n")
    done = call(place.parent, str(place / "mine.yaml"), f"out={place}/out", "-q")
    assert done.returncode == 0, done.stdout + done.stderr
    assert digests(place / "out")
    # Elsewhere and later its code is run if the user, not the output, names it.
    done = call(place.parent, str(place / "out"), command="requeue")
    assert done.returncode == 2
    assert "one_recipe is not a module of gristmill, and no output may choose what is run" in done.stderr
    done = call(place.parent, str(place / "out"), "--config", str(place / "mine.yaml"), command="requeue")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_an_actor_in_a_file_filters_a_recipe_of_the_project(place: Path) -> None:
    (place / "mine.yaml").write_text(
        "recipe: rerank\nrunner: inprocess\nout: out\n"
        "corpus: {kind: assistant, records: 500, folds: 2, shard: {rows: 100},\n"
        "         filters: [{actor: 'one_file:long_winded', settings: {most: 8}}]}\nlists: {n: 8}\n"
    )
    done = call(place, "mine.yaml", "-q")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (place / "out" / "requests_kept").iterdir()
    sealed = open_sealed(str(folder))
    assert list(sealed.seal["reasons"]) == ["one_file:long_winded: over 8 words"]
    assert all(len(text.split()) <= 8 for table in sealed.tables() for text in table["text"].to_pylist())


WRONG = {
    "module": ("{actor: 'no_file:x'}", "filters[0]: no_file cannot be imported: there is no module 'no_file'"),
    "name": ("{actor: 'one_file:short'}", "filters[0]: one_file:short: one_file has no short; expected"),
    "no filter": (
        "{actor: 'one_file:filter_records'}",
        "filters[0]: one_file:filter_records is not a filter; expected",
    ),
    "form": ("{actor: one_file}", "filters[0]: 'one_file' is not the name of a class or function; expected"),
    "key": (
        "{actor: 'one_file:long_winded', settings: {mots: 3}}",
        "filters[0]: settings.mots: there is no such setting, did you mean 'most'? (expected one of most)",
    ),
    "value": (
        "{actor: 'one_file:long_winded', settings: {most: many}}",
        "filters[0]: settings.most: 'many' is not right; expected a valid integer",
    ),
}


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, place: Path) -> Path:
    """The folder as the current one; what is loaded from it is forgotten."""
    monkeypatch.setattr(names, "_folders", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(place)
    yield place
    for name in ("lab", "lab.hello", "lab.greet", "lab.filters", "one_file", "one_recipe", "math", "xxsubtype"):
        module = sys.modules.get(name)
        if str(place) in str(getattr(module, "__file__", "")):
            del sys.modules[name]


@pytest.mark.parametrize(("given", "message"), WRONG.values(), ids=WRONG)
def test_errors_of_a_filter_are_reported_when_the_config_is_read(clean: Path, given: str, message: str) -> None:
    for recipe, section in (("distill", "corpus"), ("rerank", "corpus"), ("bootstrap_lm", "in_domain")):
        (clean / "mine.yaml").write_text(f"recipe: {recipe}\n{section}: {{filters: [{given}]}}\n")
        with pytest.raises(UserError) as caught:
            load("mine.yaml")
        assert f"mine.yaml: {section}.{message}" in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


def test_a_missing_recipe_is_reported_in_one_sentence(clean: Path) -> None:
    (clean / "mine.yaml").write_text("recipe: helo\n")
    with pytest.raises(UserError, match=r"there is no recipe 'helo'.* or helo.py beside the config"):
        load("mine.yaml")
    (clean / "mine.yaml").write_text("recipe: lab.helo\n")
    with pytest.raises(
        UserError, match=r"lab.helo cannot be imported: there is no module 'lab.helo' \(also searched in"
    ):
        load("mine.yaml")


RECIPE_FAULTS = {
    "settings": (
        "class Config: ...\ndef run(config, run): ...\n",
        "Config and run, the first a subclass of gristmill",
    ),
    "nothing": ("\n", "'own_fault' is not a recipe; expected a module with Config"),
    "syntax": ("import json\nnot python here(\n", r"cannot be imported: SyntaxError: .* \(.*own_fault.py, line 2\)"),
    "missing": (
        "import json\nimport no_such_package\n",
        r"cannot be imported: .*no_such_package",
    ),
    "raises": ("import json\n\njson.loads('{')\n", r"cannot be imported: JSONDecodeError: .* \(.*, line \d+\)"),
    "exits": ("raise SystemExit(3)\n", r"cannot be imported: SystemExit: 3 \(.*own_fault.py, line 1\)"),
}


@pytest.mark.parametrize(("text", "message"), RECIPE_FAULTS.values(), ids=RECIPE_FAULTS)
def test_a_module_that_is_no_recipe_is_reported_in_one_sentence(clean: Path, text: str, message: str) -> None:
    (clean / "own_fault.py").write_text(text)
    (clean / "mine.yaml").write_text("recipe: own_fault\n")
    with pytest.raises(UserError, match=message) as caught:
        load("mine.yaml")
    assert len(str(caught.value).splitlines()) == 1
    sys.modules.pop("own_fault", None)


def test_a_recipe_named_as_a_bundled_one_is_ambiguous(clean: Path) -> None:
    (clean / "rerank").mkdir()  # an output
    (clean / "distill.py").write_text("print('a script')\n")
    (clean / "mine.yaml").write_text("recipe: rerank\n")
    assert load("mine.yaml").module.__name__ == "gristmill.pipelines.requests.rerank"
    (clean / "rerank.py").write_text((clean / "one_recipe.py").read_text())
    with pytest.raises(UserError, match=r"'rerank' is both a recipe of Gristmill and .*rerank.py; expected"):
        load("mine.yaml")
    (clean / "mine.yaml").write_text("recipe: gristmill.pipelines.requests.rerank\n")
    assert load("mine.yaml").module.__name__ == "gristmill.pipelines.requests.rerank"


def test_a_module_hidden_by_an_installed_one_is_named(clean: Path) -> None:
    (clean / "json.py").write_text("from gristmill.actors.records import Filter\n")
    load("hello.yaml")
    with pytest.raises(UserError, match=r"json has no Filter \(it is .*__init__.py, which hides .*json.py; expected"):
        names.named("json:Filter")
    (clean / "mine.yaml").write_text("recipe: json\n")
    with pytest.raises(UserError, match=r"'json' is not a recipe \(it is .* hides .*json.py"):
        load("mine.yaml")


def test_a_recipe_that_returns_no_report_is_told_so(clean: Path) -> None:
    text = (clean / "one_recipe.py").read_text().replace("return Report(", "return dict(")
    (clean / "own_fault.py").write_text(text)
    (clean / "mine.yaml").write_text("recipe: own_fault\nout: out\nrunner: inprocess\n")
    with pytest.raises(UserError, match=r"recipe own_fault: run\(config, run\) returned dict; expected a .*Report"):
        carry_out(load("mine.yaml"), RunProgress())
    sys.modules.pop("own_fault", None)


def test_the_users_folder_hides_nothing_and_its_loaded_modules_are_known(clean: Path) -> None:
    (clean / "json.py").write_text("raise ImportError('not this one')\n")
    load("hello.yaml")
    assert sys.path[-1] == str(clean)
    assert names.own_modules() == {"lab": clean / "lab"}
    names.named("one_file:long_winded")
    assert names.own_modules() == {"lab": clean / "lab", "one_file": clean / "one_file.py"}


def test_a_bundled_config_is_found_by_its_name(clean: Path) -> None:
    for name in ("distill", "distill.yaml", "configs/distill.yaml", "configs/distill"):
        assert load(name).recipe == "distill"
    (clean / "distill.yaml").write_text("recipe: rerank\n")
    assert load("distill.yaml").recipe == "rerank"  # what is there comes first
    with pytest.raises(
        UserError, match=r"there is no such recipe file; expected .* bundled one: bootstrap-lm, .*rerank"
    ):
        load("distil")
    with pytest.raises(UserError, match=r"bundled one: .*, did you mean 'distill'\?$"):
        load("configs/distil.yaml")
