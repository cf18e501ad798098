"""The help of the command, verb by verb, and what it says of mistyped words."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import typer

from gristmill.pipelines.command.cli import app

VERBS = list(typer.main.get_command(app).commands)


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_speaks_no_python(gristmill, verb: str) -> None:
    shown = gristmill(verb, "--help").stdout
    assert not re.search(r"<\w+|list\[|None|Annotated|\{[A-Z]|\[required\]| range", shown), shown
    declared = typer.main.get_command(app).commands[verb]
    assert declared.help
    assert all(param.help for param in declared.params), f"{verb}: an argument or option without help"
    usage, _, described = shown.partition("\n")
    for argument in (param for param in declared.params if param.param_type_name == "argument"):
        name = argument.metavar.strip("[].")
        assert name in usage
        assert name in described


def test_the_list_of_verbs_is_whole(gristmill) -> None:
    shown = gristmill("--help").stdout
    assert "..." not in shown.partition("Commands:")[2]
    assert all(re.search(rf"^  {verb} ", shown, re.M) for verb in VERBS)
    assert "gristmill run distill" in shown


def test_versions_for_a_bug_report_without_their_packages() -> None:
    code = "import sys\nfrom gristmill.pipelines.command.cli import main\ntry:\n    main()\nfinally:\n"
    code += "    print([name for name in ('torch', 'ray', 'pyarrow', 'numpy') if name in sys.modules], file=sys.stderr)"
    made = subprocess.run([sys.executable, "-c", code, "--version"], capture_output=True, text=True, check=True)
    names = [line.split()[0] for line in made.stdout.splitlines()]
    assert names[:5] == ["gristmill", "python", "torch", "ray", "pyarrow"]
    assert made.stdout.splitlines()[1] == f"python {sys.version.split()[0]}"
    assert made.stderr.strip() == "[]"


MISTYPED = {
    "verb": (["rnu", "distill"], "No such command 'rnu'. Did you mean 'run'?"),
    "recipe": (["distill"], "No such command 'distill'. Did you mean `gristmill run distill`?"),
    "file": (["mine.yaml", "seed=1"], "Did you mean `gristmill run mine.yaml`?"),
    "option": (["run", "distill", "--quite"], "No such option: --quite"),
    "near option": (["run", "distill", "--quite"], "--quiet"),
    "version": (["--verion"], "--version"),
    "config": (["run", "distil"], "did you mean 'distill'?"),
    "choice": (
        ["transcribe", "m", "a.wav", "--device", "tpu"],
        "'--device': 'tpu' is not one of 'auto', 'cpu'",
    ),
    "number": (["transcribe", "m", "a.wav", "--beam", "x"], "'--beam': expected a whole number"),
    "quoted": (["my config.yaml"], "Did you mean `gristmill run 'my config.yaml'`?"),
    "shell": (["completion", "bsh"], "did you mean 'bash'?"),
}


@pytest.mark.parametrize(("words", "message"), MISTYPED.values(), ids=MISTYPED)
def test_a_mistyped_word_is_told_the_nearest(gristmill, words: list[str], message: str) -> None:
    result = gristmill(*words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
