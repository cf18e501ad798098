"""The code of docs/extend.md is that of its files, and it runs: a filter, an actor with an artifact, a recipe."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from gristmill.pipelines.config import recipes
from gristmill.shards import names
from gristmill.shards.dataset import open_sealed
from tests.conftest import ROOT
from tests.pipelines.commands import call

PAGE = "docs/extend.md"
FOLDER = ROOT / "examples" / "extend"
BLOCK = re.compile(r"<!-- (file|part of): (\S+) -->\n```\w+\n(.*?)```\n", re.S)


def test_each_block_of_the_page_is_its_file() -> None:
    page = (ROOT / PAGE).read_text()
    blocks = BLOCK.findall(page)
    assert page.count("```") == 2 * len(blocks)
    for how, name, code in blocks:
        text = (ROOT / name).read_text()
        assert code == text if how == "file" else code in text, f"{PAGE}: the block of {name} is not what is there"
    shown = {name for how, name, _ in blocks if how == "file"}
    there = {path.relative_to(ROOT).as_posix() for path in FOLDER.rglob("*") if path.suffix in (".py", ".yaml")}
    assert there - shown == {"examples/extend/lab/__init__.py"}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the files outside the checkout, in a folder beside the current one; what is loaded is forgotten."""
    monkeypatch.setattr(names, "_folders", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "current").mkdir()
    monkeypatch.chdir(tmp_path / "current")
    yield Path(shutil.copytree(FOLDER, tmp_path / "extend", ignore=shutil.ignore_patterns("__pycache__")))
    for name in [name for name in sys.modules if name.partition(".")[0] == "lab"]:
        del sys.modules[name]


def digests(out: Path) -> dict[str, str]:
    return {made["name"]: made["digest"] for made in json.loads((out / "run.json").read_text())["made"]}


def test_the_recipe_runs_with_its_filter_actor_and_training(place: Path) -> None:
    assert "lab.domains" not in recipes().values()  # nothing outside its own files knows it
    done = call("run", place / "domains.yaml", "-q")
    assert done.exit_code == 0, done.output
    out = Path("out/domains")
    made = digests(out)
    assert {"requests_kept", "words", "vectors", "binary", "idf", "classified"} <= set(made)
    (kept,) = (out / "requests_kept").iterdir()
    assert list(open_sealed(str(kept)).seal["reasons"]) == ["lab.filters:too_short: fewer than 4 words"]
    report = json.loads((out / "report.json").read_text())
    errors = {row["system"]: row["value"] for row in report["metrics"] if row["metric"] == "error"}
    assert 0 < errors["idf"] < errors["binary"] < 0.5
    assert "On test requests, Inverse document frequency is best, Domain error" in report["summary"]
    assert f"verdict: {report['summary']}" in done.output
    assert call("audit", out).exit_code == 0

    again = call("run", place / "domains.yaml")
    assert again.exit_code == 0
    assert "nothing to do" in again.stdout

    # Another seed is another training; what does not depend on it stays.
    changed = call("run", place / "domains.yaml", "seeds=[1]", "training.batch=8", "-q")
    assert changed.exit_code == 0, changed.output
    other = digests(out)
    same = {name for name, digest in other.items() if made[name] == digest}
    assert same == {"requests", "requests_kept", "split_0", "words", "vectors"}
    wrong = call("run", place / "domains.yaml", "words.sise=3")
    assert wrong.exit_code == 2
    assert "did you mean 'size'" in wrong.output


def test_the_script_uses_them_from_python(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setattr(sys, "argv", ["from_python.py"])
    runpy.run_path(str(place / "from_python.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "'text': 'lights on in the hall', 'words': 5}] {'too_short: fewer than 4 words': 1}" in printed


def test_rows_are_grouped_by_key(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(place))
    runpy.run_path(str(place / "sessions.py"), run_name="__main__")
    dialogues, spoken = capsys.readouterr().out.splitlines()
    assert dialogues == "[{'id': 's1', 'records': 3, 'dialogue': 'which one? / yes, the lamp / done'}]"
    assert spoken == "[{'id': 'ann', 'records': 2, 'words': 4}, {'id': 'bob', 'records': 2, 'words': 3}]"


def test_a_training_that_resumes_gives_the_same_model(place: Path) -> None:
    assert call("run", place / "domains.yaml", "seeds=[0]", "-q").exit_code == 0
    from lab.linear import LinearTraining, train

    class Context:
        rank, world_size, trial_steps = 0, 1, None

        def __init__(self, stop: int = -1, saved: bytes | None = None) -> None:
            self.stop, self.saved = stop, saved

        def resume(self) -> bytes | None:
            return self.saved

        def report(self, metrics: Mapping[str, float], checkpoint: bytes | None = None) -> None:
            self.saved = checkpoint or self.saved
            if metrics["step"] == self.stop:
                raise KeyboardInterrupt

    (data,) = map(str, Path("out/domains/vectors").iterdir())
    settings = LinearTraining(vector="idf", checkpoint_steps=2, report_steps=1)
    whole = train(settings, Context(), data=data)
    stopped = Context(stop=2)
    with pytest.raises(KeyboardInterrupt):
        train(settings, stopped, data=data)
    assert train(settings, Context(saved=stopped.saved), data=data) == whole
