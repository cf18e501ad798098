"""The commands about compact stores of language models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gristmill.models.ngrams.estimate import NgramSettings, estimate
from gristmill.pipelines.command.cli import app
from gristmill.pipelines.command.completion import offers
from tests.models.ngrams.kneser_ney import sample

TEXT = sample(5, 300)
WORDS = sorted({word for sentence in TEXT for word in sentence})


@pytest.fixture(scope="module")
def arpa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lm") / "lm.arpa"
    path.write_bytes(estimate(TEXT, NgramSettings(order=3), WORDS).to_bytes())
    return path


def test_a_store_is_built_shown_and_scores_as_its_arpa_file(arpa: Path, tmp_path: Path, gristmill) -> None:
    place = tmp_path / "made" / "lm.store"
    built = gristmill("lm", "build", arpa, place)
    assert built.exit_code == 0, built.stderr
    assert "exact: scores are those of the ARPA file" in built.stdout
    assert built.stdout.splitlines()[-1] == f"store: {place}"
    before = place.read_bytes()
    assert gristmill("lm", "build", arpa.parent, place, "-q").stdout == f"store: {place}\n"
    assert place.read_bytes() == before, "the same model gives the same bytes"
    shown = gristmill("lm", "info", place)
    assert shown.stdout.splitlines() == built.stdout.splitlines()[:-1]
    facts = json.loads(gristmill("lm", "info", place, "--json").stdout)
    assert (facts["order"], len(facts["grams"])) == (3, 3)
    assert facts["bytes"] == len(before)
    texts = tmp_path / "texts"
    texts.write_text("".join(f"{' '.join(words)}\n" for words in [*TEXT[:30], ["nothing", WORDS[3]]]))
    pytest.importorskip("kenlm")
    expected = gristmill("score", arpa, texts, "-f", "jsonl")
    for command in (["lm", "score"], ["score"]):
        found = gristmill(*command, place, texts, "-f", "jsonl")
        assert (found.exit_code, found.stdout) == (0, expected.stdout)


def test_what_is_left_out_is_told(arpa: Path, tmp_path: Path, gristmill) -> None:
    place = tmp_path / "lm.store"
    shown = gristmill("lm", "build", arpa, place, "--quantise", "4", "--fingerprint", "4").stdout
    assert "log-probabilities of 4 bits: error " in shown
    assert "back-offs of 4 bits: error " in shown
    assert "words of 4 bits: of the words that a context does not list" in shown
    assert "exact" not in shown
    assert gristmill("lm", "info", place).stdout == shown.rpartition("store: ")[0]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["build", "none.arpa", "lm.store"], "none.arpa: no such file"),
        (["build", "lm.arpa", "lm.bin"], "lm.bin: not the name of a store; expected one that ends with .store"),
        (["build", "lm.arpa", "notes.store"], "notes.store: there is something that is no store"),
        (["build", "bad.arpa", "lm.store"], "bad.arpa: not an ARPA file"),
        (["build", "", "lm.store"], "an empty text"),
        (["info", "none.store"], "none.store: no such file"),
        (["info", "notes.store"], "notes.store: not a store of n-grams"),
        (["info", "harmed.store"], "harmed.store: is damaged (body)"),
        (["score", "harmed.store", "bad.arpa"], "harmed.store: is damaged (body)"),
    ],
)
def test_mistakes_cost_one_sentence(
    arpa: Path, tmp_path: Path, gristmill, monkeypatch: pytest.MonkeyPatch, command: list[str], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lm.arpa").write_bytes(arpa.read_bytes())
    Path("notes.store").write_text("my notes")
    Path("bad.arpa").write_text("no model")
    assert gristmill("lm", "build", "lm.arpa", "harmed.store").exit_code == 0
    data = bytearray(Path("harmed.store").read_bytes())
    data[len(data) // 3] ^= 1
    Path("harmed.store").write_bytes(data)
    before = sorted(path.name for path in tmp_path.iterdir())
    made = gristmill("lm", *command)
    assert (made.exit_code, made.stdout) == (2, "")
    assert expected in made.stderr
    assert made.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before, "nothing is left half written"


def test_the_words_of_the_group_are_completed() -> None:
    import typer

    group = typer.main.get_command(app)
    assert [word for word, _ in offers(group, ["lm"], "")] == ["build", "score", "info"]
    assert "--quantise" in [word for word, _ in offers(group, ["lm", "build"], "--q")]


def test_the_command_begins_without_the_compiler() -> None:
    code = "import sys; from gristmill.pipelines.command import cli; from gristmill.actors.text import language_model; "
    code += "print([name for name in sys.modules if name.startswith(('numba', 'llvmlite'))])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
