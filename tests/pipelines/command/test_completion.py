"""Completion, in the shells that are here: each runs the code that `gristmill completion` prints."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from gristmill.pipelines.command.cli import app
from gristmill.pipelines.command.completion import offers, script
from tests.conftest import ROOT

STUDENT = "systems.student."
SEGMENT = ("silero", "energy")


def offered(*words: str) -> list[str]:
    return [word for word, _ in offers(typer.main.get_command(app), words[:-1], words[-1])]


def test_words_by_their_place() -> None:
    assert offered("st") == ["status", "stop"]
    assert "run" in offered("")
    assert offered("--v") == ["--version"]
    assert {"distill", "rerank"} <= set(offered("run", ""))
    assert "fleet" not in offered("run", "")
    assert offered("run", "distill", "--q") == ["--quiet"]
    assert offered("run", "distill", "systems.stu") == [STUDENT]
    assert f"{STUDENT}temperature=" in offered("run", "distill", "seed=1", STUDENT)
    assert offered("run", "distill", "systems.model.encoder=") == [
        f"systems.model.encoder={name}" for name in ("conformer", "lstm", "gru")
    ]
    assert offered("plan", "distill", "--sample", "") == [], "the number is not known"
    assert "seed=" in offered("plan", "distill", "--sample", "5", "se")
    assert offered("config", "bootstrap_lm", "ngrams.ord") == ["ngrams.order"]
    assert offered("config", "rerank", "lists") == ["lists.", "lists"], "a section is whole, or goes on"
    assert offered("run", "rerank", "lists") == ["lists."]
    assert offered("run", "distill", "corpus.segment=") == [f"corpus.segment={one}" for one in (*SEGMENT, "null")]
    assert offered("run", "distill", "systems.gold=") == ["systems.gold=null"]
    assert offered("transcribe", "m", "--format", "") == ["text", "jsonl", "ctm", "srt"]
    assert offered("transcribe", "m", "--device", "c") == ["cpu", "cuda"]
    assert offered("transcribe", "m", "--segment", "") == list(SEGMENT)
    assert offered("transcribe", "m", "--runner", "in") == ["inprocess"]
    assert offered("export", "out/x", "n") == ["nemo"]
    assert offered("export", "out/x", "nemo", "dest", "runner=r") == ["runner=ray"]
    assert offered("status", "out", "") == [], "there is no second argument"
    assert offered("no_such_verb", "") == []


def test_files_and_own_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "mine.yaml").write_text("recipe: lab.mine\nown: {depth: 3}\n")
    (tmp_path / "notes.txt").touch()
    monkeypatch.chdir(tmp_path)
    assert offered("run", "de") == ["deep/"]
    assert offered("run", "n") == []
    assert offered("run", "deep/") == ["deep/mine.yaml"]
    assert offered("run", "deep/mine.yaml", "o") == ["own.", "out="]
    assert offered("run", "deep/mine.yaml", "own.") == ["own.depth="]
    assert offered("requeue", "out", "--config", "deep/m") == ["deep/mine.yaml"]


def test_what_is_asked_imports_nothing_heavy() -> None:
    heavy = ("torch", "ray", "pyarrow", "numpy", "pydantic")
    code = "import sys\nfrom gristmill.pipelines.command.cli import main\nmain()\n"
    code += f"print([name for name in {heavy} if name in sys.modules])"
    made = subprocess.run(
        [sys.executable, "-c", code, "complete", "bash", "run", "distill", STUDENT],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = made.stdout.splitlines()
    assert f"{STUDENT}lr=" in lines
    assert lines[-1] == "[]"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the command."""
    folder = tmp_path_factory.mktemp("bin")
    command = folder / "gristmill"
    command.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m gristmill "$@"\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    return folder


def told(shell: str, code: str, place: Path) -> list[str]:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"there is no {shell} here")
    line = [found, {"bash": "--norc", "zsh": "-f", "fish": "--no-config"}[shell]]
    env = {"PATH": f"{place}:/usr/local/bin:/usr/bin:/bin", "HOME": str(place)}
    made = subprocess.run([*line, "-c", code], cwd=place, env=env, capture_output=True, text=True, timeout=60)
    assert made.returncode == 0, made.stderr
    return made.stdout.splitlines()


def test_in_bash(place: Path) -> None:
    asked = ["gristmill ru", "gristmill run distill systems.model.encoder=l", f"gristmill run distill {STUDENT}te"]
    code = "source <(gristmill completion bash); complete -p gristmill; compopt() { printf '%s ' \"$*\"; }\n"
    for line in asked:
        code += f"COMP_LINE='{line}' COMP_POINT={len(line)}; _gristmill gristmill; echo \"${{COMPREPLY[*]}}\"\n"
    assert told("bash", code, place) == [
        "complete -o default -F _gristmill gristmill",
        "run",
        "lstm",  # what is behind the last "=", as Bash replaces that
        f"-o nospace {STUDENT}temperature=",
    ]


def test_in_zsh(place: Path) -> None:
    code = "compdef() { print compdef $* }\n_describe() { print -l $open; print -- --; print -l $whole }\n"
    code += "source <(gristmill completion zsh)\n"
    code += f"words=(gristmill run distill {STUDENT}te) CURRENT=4; _gristmill\n"
    code += "words=(gristmill run distill systems.model.encoder=l) CURRENT=4; _gristmill\n"
    shown = told("zsh", code, place)
    assert shown[0] == "compdef _gristmill gristmill"
    assert shown[1].startswith(f"{STUDENT}temperature=:Divides the teacher")
    assert shown[2:] == ["--", "", "", "--", "systems.model.encoder=lstm"]


def test_in_fish(place: Path) -> None:
    code = "gristmill completion fish | source\n"
    code += f"complete -C 'gristmill run distill {STUDENT}te'\ncomplete -C 'gristmill ru'\n"
    shown = told("fish", code, place)
    assert shown[0].startswith(f"{STUDENT}temperature=\tDivides the teacher")
    assert shown[1] == "run\tRun or resume a recipe."


def test_the_code_is_that_of_the_shell(gristmill) -> None:
    assert all(gristmill("completion", shell).stdout == script(shell) for shell in ("bash", "zsh", "fish"))
