"""An output has a folder of its own: one that holds other things is refused, and nothing is written there."""

from __future__ import annotations

from pathlib import Path

import pytest

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.models.nlu.rerankers import DomainReranker
from gristmill.pipelines.command.occupied import Maker, refuse_occupied
from gristmill.pipelines.run import Run
from gristmill.shards.errors import UserError
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
        {"blobs/0123456789abcdef/data.bin": b"", "thesis.doc": b""},  # of a cache
        {"blobs/0123456789abcdef/seal.json": b"{}"},
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
    _ = Run(str(tmp_path / "script"), InProcessRunner()).table("words", tiny.texts(3)).digest
    assert gristmill("run", recipe, f"out={tmp_path}/script").exit_code == 0


@pytest.mark.parametrize(
    "left", ["texts/{0}/data/000000-{0}.parquet", "count/{0}/checkpoints/step-000001-{0}{0}{0}{0}"]
)
def test_what_a_run_left_before_its_first_result_is_taken(gristmill, recipe: Path, tmp_path: Path, left: str) -> None:
    path = tmp_path / "out" / left.format("0123456789abcdef")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    assert gristmill("run", recipe).exit_code == 0


def test_the_output_of_another_recipe_is_refused(gristmill, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert gristmill("plan", recipe).exit_code == 0
    (tmp_path / "other_tiny.py").write_text("from tests.pipelines.tiny import Config, run\n")
    other = tmp_path / "other.yaml"
    other.write_text(recipe.read_text().replace("tests.pipelines.tiny", "other_tiny"))
    assert gristmill("plan", other).exit_code == 0  # an estimate is no result
    assert gristmill("run", recipe).exit_code == 0
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "home.json").write_bytes(DomainReranker.unweighted("home").to_bytes())
    held = contents(out)
    lists = ("rerank", tmp_path / "lists.jsonl", tmp_path / "weights", out, "runner=inprocess")
    for words, mine in (
        (("run", other), "the recipe other_tiny"),
        (("plan", other), "the recipe other_tiny"),
        (lists, "`gristmill rerank`"),
    ):
        result = gristmill(*words)
        assert result.exit_code == 2
        said = f"out={out}: holds results of the recipe tests.pipelines.tiny, and those of {mine} were to be written"
        assert f"{said} there; expected the recipe tests.pipelines.tiny, or another out" in result.stderr
        assert contents(out) == held
    (out / "run.json").unlink()  # begun
    assert gristmill("run", other).exit_code == 2
    assert gristmill("run", recipe).exit_code == 0


def test_a_maker_is_known_by_other_spellings() -> None:
    distill = Maker("distill")
    assert distill.is_same(Maker("gristmill.pipelines.speech.distill"))
    assert not any(distill.is_same(Maker(name)) for name in ("lab.distill", "speech.distill", "rerank"))
    assert Maker("lab.domains").is_same(Maker("domains"))
    assert not Maker("rerank").is_same(Maker("rerank", command=True))


def test_commands_that_write_an_output_do_not_share_one(tmp_path: Path) -> None:
    out = str(tmp_path)
    Run(out, InProcessRunner()).write_ledger("rerank", "")
    refuse_occupied(out, Maker("rerank", command=True))
    for other in (Maker("rerank"), Maker("transcribe", command=True)):
        with pytest.raises(UserError, match=f"holds results of `gristmill rerank`, and those of {other} were to be"):
            refuse_occupied(out, other)
