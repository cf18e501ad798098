"""Transcription through words that are known: what the decoder finds in the network's log-probabilities."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from gristmill.actors.ngram_files import build_store, load_store
from gristmill.actors.speech import decode, personal_model
from gristmill.actors.speech.lexicon_files import read_lexicon
from gristmill.actors.speech.teacher_checkpoint import Checkpoint
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.models.ngrams.build import StoreSettings
from gristmill.models.ngrams.estimate import NgramSettings, estimate
from gristmill.models.speech.acoustic import AcousticModel, AcousticSettings
from gristmill.models.speech.checkpoint import save_acoustic
from gristmill.models.speech.decoder import Decoder, DecoderSettings
from gristmill.models.speech.features import log_mel
from gristmill.models.speech.lexicon import Lexicon
from gristmill.models.speech.units import Units, phonemes, sentencepiece
from gristmill.pipelines.run import Run
from gristmill.pipelines.speech.known_words import KnownWords
from gristmill.pipelines.speech.transcribe import Transcriber
from gristmill.shards.artifact import put_artifact
from gristmill.shards.errors import UserError
from tests.pipelines.speech import used
from tests.pipelines.speech.test_transcribe import tones

WORDS = ["".join(some) for size in (1, 2, 3) for some in itertools.permutations("abcd", size)]
TEXTS = [list(some) for some in np.random.default_rng(0).choice(WORDS, (60, 4))]


def recogniser(folder: Path, units: Units) -> Path:
    """A model with random weights."""
    torch.manual_seed(7)
    sizes = AcousticSettings(encoder="gru", dim=16, layers=1, heads=2, channels=2, subsampling=3)
    model = AcousticModel(sizes, used.FEATURES.n_mels, len(units)).eval()
    with torch.no_grad():
        model.head.weight.mul_(9)
    put_artifact(str(folder), {"model.safetensors": save_acoustic(model, units, used.FEATURES)}, {})
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a recording, models of three kinds of units, a language model, its store, and files of words."""
    folder = tmp_path_factory.mktemp("known")
    soundfile.write(folder / "a.wav", tones(np.random.default_rng(5)), 8000)
    recogniser(folder / "letters", used.UNITS)
    recogniser(folder / "pieces", sentencepiece([" ".join(text) for text in TEXTS], 24))
    recogniser(folder / "sounds", phonemes(list("abcd")))
    (folder / "lm.arpa").write_bytes(estimate(TEXTS, NgramSettings(order=2)).to_bytes())
    build_store(str(folder), str(folder / "lm.store"), StoreSettings())
    (folder / "few.txt").write_text("ab\ncd\nac\n")
    (folder / "sounds.tsv").write_text("".join(f"{word}\t{' '.join(word)}\n" for word in WORDS))
    (folder / "1.arpa").write_bytes(estimate([["1", "2"]], NgramSettings(order=2)).to_bytes())
    (folder / "1.txt").write_text("1\n2\n")
    (folder / "notes.store").write_text("my notes")
    return folder


def expected(place: Path, model: str, words: list[str] | None = None, lm: bool = True, **search: float) -> str:
    samples, _ = soundfile.read(place / "a.wav", dtype="float32")
    network = Checkpoint(str(place / model))
    log_probs, _ = network([log_mel(samples, used.FEATURES)])
    units, store = network.info.units, load_store(str(place / "lm.store"))
    if units.kind == "phonemes":
        lexicon = Lexicon.pronounced({word: [" ".join(word)] for word in words or WORDS}, units)
    else:
        lexicon = Lexicon.spelled(words or store.words.names(), units)
    decoder = Decoder(units, DecoderSettings(**search), lexicon, store if lm else None)
    found = decoder.decode(log_probs[0].numpy())
    return found[0].text if found else ""


@pytest.mark.parametrize("model", ["letters", "pieces"])
def test_the_words_are_those_of_the_language_model(place: Path, model: str, gristmill) -> None:
    text = expected(place, model)
    for lm in ("lm.store", "lm.arpa", ""):
        made = gristmill("transcribe", place / model, place / "a.wav", "--lm", place / lm)
        assert (made.exit_code, made.stdout) == (0, f"{text}\n"), made.stderr
    assert text
    assert set(text.split()) <= set(WORDS)
    assert text != gristmill("transcribe", place / model, place / "a.wav").stdout.strip()
    made = gristmill("transcribe", place / model, place / "a.wav", "--lm", place / "lm.store", "-f", "jsonl")
    row = json.loads(made.stdout)
    assert " ".join(word["word"] for word in row["words"]) == row["text"] == text
    assert all(0 < word["confidence"] <= 1 and word["end"] <= row["duration"] + 0.001 for word in row["words"])


def test_a_lexicon_has_the_words(place: Path, gristmill) -> None:
    few = ["--lexicon", place / "few.txt"]
    for lm in (False, True):
        given = [*few, "--lm", place / "lm.store"] if lm else few
        made = gristmill("transcribe", place / "letters", place / "a.wav", *given, "--beam", "4")
        assert made.stdout.strip() == expected(place, "letters", ["ab", "cd", "ac"], lm, beam=4)
        assert set(made.stdout.split()) <= {"ab", "cd", "ac"}


def test_single_settings_are_changed(place: Path, gristmill) -> None:
    command = ["transcribe", place / "letters", place / "a.wav", "--lm", place / "lm.store", "--beam", "4"]
    search = {"weight": 4.0, "unknown": -3.0, "beam": 30}
    made = gristmill(*command, *(f"--set=decoder.{name}={value}" for name, value in search.items()))
    assert (made.exit_code, made.stdout) == (0, f"{expected(place, 'letters', **search)}\n"), made.stderr
    assert made.stdout != gristmill(*command).stdout


def test_phonemes_need_a_lexicon(place: Path, gristmill) -> None:
    command = ["transcribe", place / "sounds", place / "a.wav", "--lm", place / "lm.store"]
    made = gristmill(*command)
    assert (made.exit_code, made.stdout) == (2, "")
    assert "lm.store: words, and a recogniser of phonemes; expected a lexicon of their pronunciations" in made.stderr
    made = gristmill(*command, "--lexicon", place / "sounds.tsv")
    assert (made.exit_code, made.stdout) == (0, f"{expected(place, 'sounds')}\n")
    assert made.stdout.strip()


def test_python_and_a_run_give_the_same(place: Path, tmp_path: Path, gristmill) -> None:
    search = DecoderSettings(beam=30, weight=1.5, unknown=-6.0)
    words = KnownWords(place / "lm.store", search=search)
    transcriber = Transcriber(place / "letters", words=words)
    (one,) = transcriber.transcribe(place / "a.wav")
    assert one.text == expected(place, "letters", **search.model_dump())
    samples, rate = soundfile.read(place / "a.wav", dtype="float32")
    assert transcriber.hear(samples, rate).text == one.text
    made = transcriber.corpus(Run(str(tmp_path / "run"), InProcessRunner()), "heard", [place / "a.wav"])
    (row,) = made.read(0).to_pylist()
    assert row["hypothesis"] == one.text
    assert row["nbest"][0]["text"] == one.text
    command = ["transcribe", place / "letters", place / "a.wav", "--out", tmp_path / "out", "--runner", "inprocess"]
    for lm, told in (("lm.store", "transcribed 1"), ("lm.store", "nothing to do"), ("lm.arpa", "transcribed 1")):
        made = gristmill(*command, "--lm", place / lm)
        assert (made.exit_code, told in made.stdout) == (0, True), made.stderr
    with pytest.raises(UserError, match="no language model, no lexicon and no list"):
        KnownWords()


def test_the_words_are_loaded_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(data: bytes, units: Units, source: str) -> Lexicon:
        read.append(source)
        return read_lexicon(data, units, source)

    for module in (decode, personal_model):
        monkeypatch.setattr(module, "read_lexicon", counted)
    samples, rate = soundfile.read(place / "a.wav", dtype="float32")
    for listed in (None, place / "few.txt"):
        words = KnownWords(place / "lm.store", place / "few.txt", listed)
        transcriber = Transcriber(place / "letters", words=words)
        (one,) = transcriber.transcribe(place / "a.wav")
        assert transcriber.hear(samples, rate).text == one.text
    assert read == [str(place / "few.txt")] * 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--lm", "none.store"], "none.store: no such file"),
        (["--lm", "none"], "none/lm.arpa: no such file"),
        (["--lm", "notes.store"], "notes.store: not a store of n-grams"),
        (["--lm", "1.arpa"], "1.arpa: the units spell none of its 2 words, the first of which is '1'"),
        (["--lm", ""], "--lm: an empty text"),
        (["--lexicon", "none.txt"], "none.txt: no such file; expected a lexicon"),
        (["--lexicon", "1.txt"], "1.txt: the units spell none of its 2 words"),
        (["--lexicon", "sounds.tsv"], "sounds.tsv: line 1 is 'a\\ta'; expected a word, which characters spell"),
        (["--lm", "1.arpa", "--lexicon", "few.txt"], "1.arpa: has none of the 3 words of"),
        (["--set", "decoder.weight=2"], "--set decoder.weight=2: is for a search through words; expected --lm"),
        (
            ["--lm", "lm.store", "--set", "decoder.weigth=2"],
            "decoder.weigth: there is no such setting, did you mean 'weight'?",
        ),
        (["--lm", "lm.store", "--set", "decoder.weight=-1"], "decoder.weight: -1"),
        (["--lm", "lm.store", "--set", "decoder.weight"], "'decoder.weight' is not an override; expected key=value"),
        (["--lm", "lm.store", "--set", "bias.enter=5"], "bias.enter=5 is for a list, and there is none"),
        (["--lm", "lm.store", "--beam", "0"], "beam: 0 is the best path, which goes through no words"),
    ],
)
def test_mistakes_cost_one_sentence(
    options: list[str], sentence: str, place: Path, gristmill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    made = gristmill("transcribe", "letters", "a.wav", *options, "-q")
    assert (made.exit_code, made.stdout) == (2, "")
    assert sentence in made.stderr
    assert made.stderr.count("\n") == 1
