"""An output has a folder of its own: one that holds other things is refused, and nothing is written there."""

from __future__ import annotations

from pathlib import Path

import pytest

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.models.requests.rerankers import DomainReranker
from gristmill.pipelines.run import Run
from tests.pipelines import tiny


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize(
    "held",
    [
        {"notes.txt": b"mine", "a.wav": b"", "b.wav": b"", "c.wav": b""},
        {"config.json": b'{"hidden_size": 64}', "model.safetensors": b""},  # of a model, not of a run
        {".git/HEAD": b"ref"},
        {"photos/2020/a.jpg": b""},
        {".gristmill/export.json": b"{}"},
    ],
)
def test_a_folder_of_other_things_is_refused(
    gristmill, recipe: Path, tmp_path: Path, command: str, held: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    for name, data in held.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(data)
    result = gristmill(command, recipe)
    assert result.exit_code == 2
    first = sorted(held)[0].partition("/")[0]
    assert f"out={out}: holds other things ({first}" in result.stderr
    assert ("and 1 more)" in result.stderr) == (len(held) > 3)
    assert "expected a new or an empty folder, or the output of an earlier run" in result.stderr
    assert contents(out) == held


def test_an_output_of_lists_that_holds_other_things_is_refused(gristmill, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "home.json").write_bytes(DomainReranker.unweighted("home").to_bytes())
    result = gristmill("rerank", tmp_path / "lists.jsonl", tmp_path / "weights", tmp_path, "runner=inprocess")
    assert result.exit_code == 2
    assert f"out={tmp_path}: holds other things (weights)" in result.stderr
    assert {path.name for path in tmp_path.rglob("*")} == {"weights", "home.json"}


def test_an_empty_folder_and_an_earlier_output_are_taken(gristmill, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "lost+found").mkdir(parents=True)  # of a new file system
    (out / ".DS_Store").write_bytes(b"")
    assert gristmill("plan", recipe).exit_code == 0
    (out / "notes.txt").write_text("on this run")
    assert gristmill("run", recipe).exit_code == 0
    for name in ("config.json", "run.json", "plan.json"):
        (out / name).unlink()
    assert "report:" in gristmill("run", recipe).stdout
    # Of a script.
    Run(str(tmp_path / "script"), InProcessRunner()).table("words", tiny.texts(3))
    assert gristmill("run", recipe, f"out={tmp_path}/script").exit_code == 0
