"""A clean that is killed at each deletion is finished by the next one; a set that is made again is made once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gristmill.pipelines.command.audit import audit_output
from gristmill.pipelines.command.clean import clean_output
from gristmill.pipelines.command.launch import carry_out
from gristmill.pipelines.command.status import StatusReader
from gristmill.pipelines.config import load
from gristmill.pipelines.progress import RunProgress
from gristmill.pipelines.unused import CleaningChoice
from gristmill.shards import store
from gristmill.shards.entries import walk_entries
from gristmill.shards.lease import FOLDER
from tests.pipelines.cleaned import NOTE

ROOT = Path(__file__).resolve().parents[2]
KILLED = -9

Drive = Callable[..., int]


@pytest.fixture
def drive(out: str) -> Iterator[Drive]:
    """Work in a process that may be killed, and return its exit code; the storage of the output is there already."""
    words = [sys.executable, "-m", "tests.fault.clean_driver"]
    driver = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with driver:
        questions, answers = driver.stdin, driver.stdout
        assert questions is not None
        assert answers is not None

        def ask(**given: Any) -> int:
            print(json.dumps(given), file=questions, flush=True)
            return int(answers.readline())

        yield ask
    assert driver.returncode == 0


@pytest.fixture(params=["local", "s3"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An output, on local disk and on object storage."""
    if request.param == "local":
        return f"{tmp_path}/out"
    return f"{request.getfixturevalue('bucket')}/{tmp_path.name}"


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "cleaned.yaml"
    path.write_text("recipe: tests.pipelines.cleaned\nout: out\nrunner: inprocess\n")
    return str(path)


def work(config: str, out: str, width: int) -> tuple[dict[str, str], set[str]]:
    """Run the recipe; return all digests, and the names of what was made."""
    run, _ = carry_out(load(config, [f"out={out}", f"width={width}"]), RunProgress())
    return {one.name: one.digest for one in run.trace}, {one.name for one in run.trace if not one.kept}


def check(out: str) -> None:
    assert [gap for result in audit_output(out) for gap in result.gaps] == []
    assert StatusReader(out).read().over


def files(out: str) -> dict[str, int]:
    return {entry.name: entry.size for entry in walk_entries(out) if not entry.name.startswith(FOLDER)}


@pytest.mark.parametrize(
    ("out", "each"),
    [
        ("local", 4),
        ("s3", 12),
        pytest.param("local", 1, marks=pytest.mark.slow),
        pytest.param("s3", 1, marks=pytest.mark.slow),
    ],
    indirect=["out"],
)
def test_a_clean_that_is_killed_at_any_deletion_is_finished_by_the_next(
    drive: Drive, config: str, out: str, each: int, tmp_path: Path
) -> None:
    first, _ = work(config, out, 1)
    second, _ = work(config, out, 2)
    # The kills follow one another: the first one comes before any deletion, each of the others after some more.
    deleted = [len(files(out))]
    allowed = 0
    while (code := drive(verb="clean", out=out, intermediate=True, allowed=allowed)) == KILLED:
        allowed = each
        deleted.append(len(files(out)))
        check(out)
        assert work(config, out, 2) == (second, set())
        if not out.startswith("s3://"):
            # A run that needs what was being deleted finishes that, and makes it again.
            copied = shutil.copytree(out, tmp_path / "copied")
            assert work(config, str(copied), 1)[0] == first
            assert work(config, str(copied), 3)[0]["noisy"] == first["noisy"]
            check(str(copied))
            shutil.rmtree(copied)
    assert code == 0
    assert len(deleted) > max(2, 10 / each)
    found = clean_output(out, CleaningChoice(intermediate=True))
    assert found.unused == []
    assert (found.files, found.bytes) == (len(files(out)), sum(files(out).values()))
    check(out)
    assert work(config, out, 2) == (second, set())
    assert work(config, out, 1)[0] == first
    check(out)


def test_a_run_that_is_killed_while_it_makes_a_set_again_continues(
    drive: Drive, config: str, out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = work(config, out, 1)
    clean_output(out, CleaningChoice(intermediate=True))
    note = tmp_path / "note"
    note.mkdir()
    monkeypatch.setenv(NOTE, str(note))
    killed = {"verb": "run", "config": config, "allowed": 1, "note": str(note)}
    assert drive(**killed, settings=[f"out={out}", "width=2"]) == KILLED
    check_gaps(out)
    digests, made = work(config, out, 2)
    assert digests["noisy"] == first["noisy"]
    assert "noisy" in made
    calls = Counter(name.partition("=")[0] for name in os.listdir(note))
    # Of two shards one was committed, and the other one was in flight.
    assert sorted(calls.values()) == [1, 2]
    check(out)
    # A clean after such a kill deletes what was made, to be made again.
    clean_output(out, CleaningChoice(intermediate=True))
    assert drive(**killed, settings=[f"out={out}", "width=3"]) == KILLED
    clean_output(out, CleaningChoice(intermediate=True, unfinished=True))
    check_gaps(out)
    assert work(config, out, 3)[0]["noisy"] == first["noisy"]
    check(out)


def check_gaps(out: str) -> None:
    assert [gap for result in audit_output(out) for gap in result.gaps] == []


def test_of_the_files_of_an_output_none_but_the_deleted_changes(config: str, out: str) -> None:
    work(config, out, 1)
    work(config, out, 2)
    before = {name: store.read_bytes(store.join(out, name)) for name in files(out)}
    found = clean_output(out, CleaningChoice(intermediate=True))
    after = files(out)
    assert {name: before[name] for name in after if name in before} == {
        name: store.read_bytes(store.join(out, name)) for name in after if name in before
    }
    assert len(before) - len(before.keys() & after) == found.deleted[0]
    left = [sum(both) for both in zip(found.after, found.tombstones, strict=True)]
    assert [len(after), sum(after.values())] == left
