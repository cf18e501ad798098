"""`gristmill clean`: what no run uses goes, what is known of it stays, and what is needed is made again."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from gristmill.pipelines.command.clean import clean_output
from gristmill.pipelines.command.launch import carry_out
from gristmill.pipelines.command.plan import make_plan
from gristmill.pipelines.config import load, save
from gristmill.pipelines.ledger import read_ledger, write_ledger
from gristmill.pipelines.progress import RunProgress
from gristmill.pipelines.run import Run
from gristmill.pipelines.unused import CleaningChoice
from gristmill.shards import store
from gristmill.shards.artifact import put_artifact
from gristmill.shards.errors import UserError
from gristmill.shards.lease import Lease
from gristmill.shards.tombstone import TOMBSTONE
from tests.pipelines.cleaned import NOTE, Noted
from tests.pipelines.test_again import Heard
from tests.pipelines.tiny import Twice

Command = Callable[..., Result]
NEWEST = {"features", "model", "noisy", "scored", "texts"}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "cleaned.yaml"
    path.write_text(f"recipe: tests.pipelines.cleaned\nout: {tmp_path}/out\nrunner: inprocess\n")
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def work(recipe: Path, *settings: str, progress: RunProgress | None = None) -> tuple[Run, bool]:
    return carry_out(load(str(recipe), settings), progress or RunProgress())


def made(run: Run) -> set[str]:
    return {trace.name for trace in run.trace if not trace.kept}


def digests(run: Run) -> dict[str, str]:
    return {trace.name: trace.digest for trace in run.trace}


def audited(gristmill: Command, out: Path) -> list[dict]:
    result = gristmill("audit", out)
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def listing(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def amount(out: Path) -> tuple[int, int]:
    files = [path for path in out.rglob("*") if path.is_file() and path.name != TOMBSTONE]
    return len(files), sum(path.stat().st_size for path in files)


def unfinished(recipe: Path, *settings: str) -> list[str]:
    """What a plan has the price of."""
    return [line.name for line in make_plan(load(str(recipe), settings)).lines if line.left]


def test_results_of_other_settings_go_and_are_made_again(gristmill, recipe: Path, out: Path) -> None:
    first, _ = work(recipe)
    work(recipe, "width=2")
    kept = listing(out)
    found = clean_output(str(out), CleaningChoice())
    assert found.after == amount(out)
    assert found.tombstones == (3, sum(path.stat().st_size for path in out.rglob(TOMBSTONE)))
    assert found.before[0] - found.deleted[0] == found.after[0]
    again = gristmill("clean", out).stdout
    assert again.startswith(f"nothing to delete: {found.after[0]} files, "), (
        "tombstones are a note of what is not there"
    )
    assert {one.path.partition("/")[0] for one in found.unused} == {"features", "model", "scored"}
    for path, data in listing(out).items():
        assert path.endswith(TOMBSTONE) or kept[path] == data
    lines = audited(gristmill, out)
    assert sorted(line["name"] for line in lines if "cleaned" in line) == ["features", "scored"]
    assert all(line["records_in"] == line["records_out"] == 24 for line in lines if "cleaned" in line)
    assert not work(recipe, "width=2")[1]
    again, _ = work(recipe)
    assert digests(again) == digests(first)
    # The recipe reads the scores, which need the model, which is trained on the features.
    assert made(again) == {"features", "model", "scored"}
    assert not [line for line in audited(gristmill, out) if "cleaned" in line]


def test_a_dry_run_shows_the_same_and_deletes_nothing(gristmill, recipe: Path, out: Path) -> None:
    work(recipe)
    work(recipe, "width=2")
    before = listing(out)
    shown = gristmill("clean", out, "--intermediate", "--dry-run")
    assert listing(out) == before
    done = gristmill("clean", out, "--intermediate")
    assert shown.exit_code == done.exit_code == 0
    assert shown.stdout.splitlines()[:-1] == done.stdout.splitlines()[:-1]
    assert shown.stdout.replace("would be", "were") == done.stdout
    assert "nothing to delete: " in gristmill("clean", out, "--intermediate").stdout


def test_an_intermediate_set_is_made_again_only_if_something_needs_it(
    gristmill, recipe: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = work(recipe)
    found = clean_output(str(out), CleaningChoice(intermediate=True))
    # A model is trained on the features, and the recipe reads the scores.
    assert [one.path.partition("/")[0] for one in found.unused] == ["noisy"]
    assert [line["name"] for line in audited(gristmill, out) if "cleaned" in line] == ["noisy"]
    assert gristmill("run", recipe).stdout.startswith("nothing to do")
    assert unfinished(recipe) == [], "the rows are not needed"
    assert unfinished(recipe, "width=2") == ["noisy", "features", "model", "scored"]
    note = tmp_path / "note"
    note.mkdir()
    monkeypatch.setenv(NOTE, str(note))
    heard = Heard()
    changed, _ = work(recipe, "width=2", progress=heard)
    assert "noisy: was deleted by `gristmill clean`, and is needed: it is made again" in heard.said
    assert made(changed) == {"noisy", "features", "model", "scored"}
    assert digests(changed)["noisy"] == digests(first)["noisy"]
    assert len(os.listdir(note)) == 2
    undisturbed, _ = work(recipe, f"out={tmp_path}/whole", "width=2")
    assert digests(changed) == digests(undisturbed)
    assert not [line for line in audited(gristmill, out) if "cleaned" in line]


def test_what_is_named_or_could_be_requeued_is_kept(gristmill, recipe: Path, out: Path, monkeypatch) -> None:
    work(recipe, "broken=true")
    work(recipe, "width=2")
    kept = gristmill("clean", out, "--keep", "model", "--dry-run").stdout
    assert "kept: model " in kept
    assert ": --keep\n" in kept
    assert "2 quarantined records, which could be requeued; --quarantined deletes it too" in kept
    assert "gristmill: --keep modle: " in (wrong := gristmill("clean", out, "--keep", "modle")).stderr
    assert wrong.exit_code == 2
    assert "did you mean 'model'?" in wrong.stderr
    gristmill("clean", out)
    work(recipe, "broken=true")
    # The input of the records that are requeued was deleted.
    clean_output(str(out), CleaningChoice(intermediate=True))
    monkeypatch.setenv("TINY_MENDED", "1")
    assert gristmill("requeue", out).exit_code == 0
    assert {(line["name"], line["quarantined"]) for line in audited(gristmill, out)} >= {("features", 0)}


def test_a_set_that_would_come_out_otherwise_keeps_no_seal(gristmill, recipe: Path, out: Path, monkeypatch) -> None:
    first, _ = work(recipe, "broken=true")
    work(recipe, "width=2")
    clean_output(str(out), CleaningChoice(quarantined=True))
    path = next(trace.url for trace in first.trace if trace.name == "features")
    assert os.listdir(path) == [TOMBSTONE]
    audited(gristmill, out)
    monkeypatch.setenv("TINY_MENDED", "1")
    again, _ = work(recipe, "broken=true")
    assert digests(again)["features"] != digests(first)["features"]
    assert TOMBSTONE not in os.listdir(path)


def test_results_put_aside_and_what_was_not_finished(gristmill, recipe: Path, out: Path) -> None:
    work(recipe)
    gristmill("run", recipe, "--again", "model")
    (folder,) = (out / "features").iterdir()
    begun = out / "features" / "0123456789abcdef"
    begun.mkdir()
    for name in ("step.json", "receipts", "data"):
        os.link(folder / name, begun / name) if name == "step.json" else (begun / name).mkdir()
    for path in (*(folder / "receipts").iterdir(), *(folder / "data").iterdir()):
        os.link(path, begun / path.parent.name / path.name)
    (folder / "data" / f"000000-{'0' * 16}.parquet").write_bytes(b"late")
    (out / "model" / "0123456789abcdef" / "checkpoints").mkdir(parents=True)
    (out / "model" / "0123456789abcdef" / "checkpoints" / f"step-000001-{'a' * 64}").write_bytes(b"weights")
    found = clean_output(str(out), CleaningChoice())
    why = {one.path: one.why for one in found.unused}
    assert [text for path, text in why.items() if path.endswith("-1")] == ["put aside by --again"]
    assert why["features/0123456789abcdef"] == why["model/0123456789abcdef"] == "not finished"
    assert why[f"features/{folder.name}"].startswith("belongs to nothing")
    assert not begun.exists()
    assert not (out / "model" / "0123456789abcdef").exists()
    assert found.after == amount(out)
    audited(gristmill, out)
    assert not work(recipe)[1]


def test_what_is_not_ours_and_links_are_left_alone(gristmill, recipe: Path, out: Path, tmp_path: Path) -> None:
    work(recipe)
    work(recipe, "width=2")
    old = next(path for path in (out / "features").iterdir() if f"features/{path.name}" not in ledger(out))
    (old / "notes.txt").write_text("mine")
    (out / "notes.txt").write_text("mine")
    (out / "models").mkdir()
    (out / "models" / "best.bin").write_text("mine")
    elsewhere = tmp_path / "elsewhere"
    (old / "data").rename(elsewhere)
    (old / "data").symlink_to(elsewhere)
    (out / "linked").symlink_to(elsewhere)
    other = out / "second"
    work(recipe, f"out={other}")
    before, inside = listing(elsewhere), listing(other)
    result = gristmill("clean", out)
    told = next(line for line in result.stdout.splitlines() if line.startswith("left alone"))
    own = (f"features/{old.name}/data", f"features/{old.name}/notes.txt")
    for path in (*own, "linked", "models", "notes.txt", "second"):
        assert path in told
    assert (listing(elsewhere), listing(other)) == (before, inside)
    assert (old / "notes.txt").exists()
    assert not (old / "receipts").exists()


def ledger(out: Path) -> set[str]:
    return {entry["path"] for entry in (read_ledger(str(out)) or {"made": []})["made"]}


def test_it_refuses_what_it_cannot_judge(gristmill, recipe: Path, out: Path, tmp_path: Path) -> None:
    def refused(*words: object) -> str:
        before = listing(out)
        result = gristmill("clean", *words)
        assert result.exit_code == 2
        assert listing(out) == before
        return result.stderr

    assert "there is no run here" in refused(tmp_path / "nothing")
    work(recipe)
    saved = (out / "run.json").read_bytes()
    (out / "run.json").unlink()
    assert "no run was finished here" in refused(out)
    (out / "run.json").write_bytes(saved)
    work(recipe, "width=2")
    (out / "run.json").write_bytes(saved)
    assert "a run with other settings has begun since" in refused(out)
    assert gristmill("clean", out, "--unfinished", "--dry-run").exit_code == 0
    work(recipe)
    early = read_ledger(str(out))
    assert early is not None
    entries = [{key: one[key] for key in ("name", "kind", "path", "digest")} for one in early["made"]]
    write_ledger(str(out), early["recipe"], early["settings"], early["processor"], entries)  # type: ignore[arg-type]
    assert "by an earlier version of Gristmill" in refused(out, "--intermediate")
    lease = Lease(str(out))
    lease.take(lambda text: None)
    try:
        for more in ((), ("--dry-run",)):
            result = gristmill("clean", out, *more)
            assert result.exit_code == 2
            assert "another run has been working at" in result.stderr
    finally:
        lease.release()
    assert gristmill("clean", out).exit_code == 0


def test_each_command_says_that_a_result_was_cleaned(gristmill, recipe: Path, out: Path, tmp_path: Path) -> None:
    first, _ = work(recipe)
    work(recipe, "width=2")
    gristmill("clean", out, "--intermediate")
    urls = {trace.name: trace.url for trace in first.trace}
    cleaned = "was deleted by `gristmill clean` on "
    for words in (
        ("inspect", urls["noisy"]),
        ("export", f"{out}/noisy", "huggingface", tmp_path / "exported"),
        ("transcribe", urls["model"], "a.wav"),
        ("translate", urls["model"]),
        ("score", urls["model"]),
    ):
        result = gristmill(*words)
        assert result.exit_code == 2, words
        assert cleaned in result.stderr
        assert "makes it again" in result.stderr
        assert "\n" not in result.stderr.strip()
    assert not (tmp_path / "exported").exists()
    shown = gristmill("inspect", out)
    assert shown.exit_code == 0
    assert shown.stderr.count(cleaned) == 4
    status = gristmill("status", out).stdout
    assert "4 results deleted by `gristmill clean`; a run makes again what it needs" in status
    assert "whole run: finished" in status
    assert "nothing is damaged" in gristmill("repair", out).stdout


def test_a_set_that_comes_out_otherwise_is_told_and_made_anew(gristmill, recipe: Path, out: Path, monkeypatch) -> None:
    work(recipe)
    gristmill("clean", out, "--intermediate")
    monkeypatch.setattr(Noted, "__call__", lambda self, batch: _louder(Twice.__call__(self, batch)))
    result = gristmill("run", recipe, "width=2")
    assert result.exit_code == 1
    assert "the set noisy came out otherwise than before `gristmill clean` deleted it" in result.stderr
    assert "`gristmill run CONFIG --again noisy`" in result.stderr
    assert gristmill("run", recipe, "width=2", "--again", "noisy").exit_code == 0
    assert not work(recipe, "width=2")[1]
    audited(gristmill, out)


def _louder(table):
    column = table.column_names.index("text")
    return table.set_column(column, "text", [[f"{text}!" for text in table["text"].to_pylist()]])


def test_a_damaged_tombstone_is_told_and_repaired(gristmill, recipe: Path, out: Path) -> None:
    first, _ = work(recipe)
    gristmill("clean", out, "--intermediate")
    (noisy,) = (out / "noisy").iterdir()
    (noisy / TOMBSTONE).write_bytes(b"{}")
    assert f"{TOMBSTONE}: cannot be read" in gristmill("audit", out).stderr
    result = gristmill("run", recipe, "width=2")
    assert result.exit_code == 1
    assert f"{noisy}/{TOMBSTONE}" in result.stderr
    gristmill("repair", out)
    assert gristmill("run", recipe, "width=2").exit_code == 0
    assert digests(work(recipe)[0]) == digests(first)
    audited(gristmill, out)


def test_a_run_that_begins_meanwhile_waits_and_finds_what_is_left(
    recipe: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run has looked at a set before the clean deletes it."""
    work(recipe)
    work(recipe, "width=2")
    waits, deletes = threading.Event(), threading.Event()
    remove = store.remove_file

    def hold(url: str) -> None:
        if threading.current_thread().name == "cleaner":
            deletes.set()
            assert waits.wait(60)
        remove(url)

    class Waiting(RunProgress):
        def say(self, text: str) -> None:
            if "another run has been working" in text:
                waits.set()

    monkeypatch.setattr(store, "remove_file", hold)
    said: list[str] = []

    def work_on() -> None:
        try:
            clean_output(str(out), CleaningChoice(intermediate=True))
        except UserError as error:
            said.append(str(error))

    cleaner = threading.Thread(target=work_on, name="cleaner", daemon=True)
    cleaner.start()
    assert deletes.wait(60)
    run, _ = work(recipe, "width=3", progress=Waiting())
    cleaner.join()
    assert waits.is_set()
    assert ["has begun meanwhile" in text for text in said] == [True]
    undisturbed, _ = work(recipe, f"out={tmp_path}/whole", "width=3")
    assert digests(run) == digests(undisturbed)


def test_a_run_of_other_settings_that_begins_meanwhile_ends_it(
    recipe: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run with nothing to do takes no lease; its settings are the newest from then on."""
    first, _ = work(recipe)
    work(recipe, "width=2")
    remove, begun = store.remove_file, []

    def begin(url: str) -> None:
        if not begun:
            begun.append(url)
            monkeypatch.setattr(store, "remove_file", remove)
            save(load(str(recipe), []))
        remove(url)

    monkeypatch.setattr(store, "remove_file", begin)
    with pytest.raises(UserError, match="has begun meanwhile"):
        clean_output(str(out), CleaningChoice())
    before, _ = work(recipe)
    assert digests(before) == digests(first)
    assert made(before) == set(), "the features were deleted already, and nothing needs them"


def test_files_of_an_artifact_with_other_names_go_too(recipe: Path, out: Path) -> None:
    work(recipe)
    old = put_artifact(f"{out}/bank/0123456789abcdef", {"i.json": b"{}"}, {}, beside={"all/samples": "0" * 64})
    store.write_bytes(f"{old.url}/all/samples", b"1")
    clean_output(str(out), CleaningChoice())
    assert os.listdir(old.url) == [TOMBSTONE]
