"""Transcription with a user's list of words: what it finds, what it tells of the list, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from gristmill.actors.speech.decode_listed import read_words
from gristmill.actors.speech.personal_model import PersonalModel
from gristmill.models.speech.features import log_mel
from gristmill.models.speech.personal import PersonalSettings
from gristmill.pipelines.speech.known_words import KnownWords
from gristmill.pipelines.speech.transcribe import Transcriber
from gristmill.shards.errors import UserError
from tests.pipelines.speech import used
from tests.pipelines.speech.test_known_words import recogniser
from tests.pipelines.speech.test_transcribe import tones


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a recording, a model of letters, and a list."""
    folder = tmp_path_factory.mktemp("listed")
    soundfile.write(folder / "a.wav", tones(np.random.default_rng(5)), 8000)
    recogniser(folder / "letters", used.UNITS)
    (folder / "names.txt").write_text("Abcd\nbad dab\n\n€\nabcd\n")
    (folder / "none.txt").write_text("€\n")
    return folder


def test_the_words_of_a_list_are_searched_for_and_the_list_is_told_of(place: Path, gristmill) -> None:
    made = gristmill("transcribe", place / "letters", place / "a.wav", "--words", place / "names.txt", "-f", "jsonl")
    assert made.exit_code == 0, made.stderr
    row = json.loads(made.stdout)
    known = PersonalModel(str(place / "letters"))
    samples, _ = soundfile.read(place / "a.wav", dtype="float32")
    heard = known.hear(log_mel(samples, used.FEATURES))
    listed = known.recogniser.listed(read_words(str(place / "names.txt")))
    found = known.recogniser.recognised(heard, listed, ("unigram", "boost"), frame=known.frame)
    assert row["text"] == found[0].text != ""
    assert [word["word"] for word in row["words"]] == row["text"].split()
    for fault in (
        "1 entry has capital letters",
        "1 entry is of several words, each of which acts as an entry: 'bad dab'",
        "1 word has letters that the units lack, and cannot act: '€'",
    ):
        assert fault in made.stderr


def test_without_a_list_it_hears_what_a_plain_search_hears(place: Path) -> None:
    known = PersonalModel(str(place / "letters"))
    samples, _ = soundfile.read(place / "a.wav", dtype="float32")
    heard = known.hear(log_mel(samples, used.FEATURES))
    nothing = known.recogniser.listed([])
    for techniques in ((), ("adapter", "unigram", "phones")):
        plain = known.recogniser.recognised(heard, None, techniques)
        assert known.recogniser.recognised(heard, nothing, techniques) == plain


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("none.txt", "none.txt: no word that can act"),
        ("missing.txt", "missing.txt: no such file; expected a text with a word or phrase a line"),
        ("a.wav", "a.wav: not UTF-8; expected a list: a text with a word or phrase a line"),
        ("", "--words: an empty text; expected a path or URL"),
    ],
)
def test_a_list_that_cannot_act_is_refused(place: Path, gristmill, words: str, sentence: str) -> None:
    given = place / words if words else ""
    made = gristmill("transcribe", place / "letters", place / "a.wav", "--words", given)
    assert (made.exit_code, made.stdout) == (2, "")
    assert sentence in made.stderr


def test_a_setting_of_the_list_is_changed_and_the_others_stay(place: Path, gristmill) -> None:
    command = ["transcribe", place / "letters", place / "a.wav", "--words", place / "names.txt"]
    samples, _ = soundfile.read(place / "a.wav", dtype="float32")
    tuned = PersonalSettings()
    known = PersonalModel(str(place / "letters"), tuned.but(bias=tuned.bias.but(enter=60.0, scale=0.0)))
    listed = known.recogniser.listed(read_words(str(place / "names.txt")))
    heard = known.hear(log_mel(samples, used.FEATURES))
    found = known.recogniser.recognised(heard, listed, ("unigram", "boost"), frame=known.frame)
    made = gristmill(*command, "--set", "bias.enter=60", "--set", "bias.scale=0")
    assert (made.exit_code, made.stdout) == (0, f"{found[0].text}\n"), made.stderr
    assert made.stdout != gristmill(*command).stdout
    made = gristmill(*command, "--set", "bias.entre=1")
    assert (made.exit_code, made.stdout, made.stderr.count("\n")) == (2, "", 1)
    assert "bias.entre" in made.stderr


def test_a_corpus_is_transcribed_with_a_list(place: Path, tmp_path: Path, gristmill) -> None:
    words = ["--words", place / "names.txt"]
    one = gristmill("transcribe", place / "letters", place / "a.wav", *words)
    made = gristmill(
        "transcribe", place / "letters", place / "a.wav", *words, "--out", tmp_path / "out", "--runner", "inprocess"
    )
    assert made.exit_code == 0, made.stderr
    shown = gristmill("inspect", tmp_path / "out" / "transcripts")
    assert one.stdout.strip() in shown.stdout


def test_from_python_a_list_is_a_path(place: Path) -> None:
    told: list[str] = []
    words = KnownWords(listed=place / "names.txt")
    transcriber = Transcriber(place / "letters", words=words, say=told.append)
    assert next(transcriber.transcribe(place / "a.wav")).text
    assert any("capital letters" in sentence for sentence in told)
    with pytest.raises(UserError, match="no language model, no lexicon and no list"):
        KnownWords()
