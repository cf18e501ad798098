import ctypes
import hashlib
import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gristmill.actors.audio import audio_bytes, decode
from gristmill.actors.speech import synthesise
from gristmill.actors.speech.synthesise import Speak, SpeakSettings, check_voices
from gristmill.actors.speech.voices import TEST_VOICES, TRAIN_VOICES, Voice, VoiceChoice, voices_of
from gristmill.pipelines.generated.spoken_requests import PARTS, SENTENCES, requests
from gristmill.shards.errors import SettingsError, UserError

ROOT = Path(__file__).resolve().parents[3]
DIGEST = """
import hashlib, sys
from gristmill.actors.speech.synthesise import Speak
from gristmill.actors.speech.voices import voices_of
from gristmill.actors.audio import audio_bytes
from gristmill.pipelines.generated.spoken_requests import requests
table = next(requests("labelled", 12, voices_of("labelled", "mixed"), seed=5))
table = table.take(list(map(int, sys.argv[1].split(","))))
out = Speak.stage().build(9)(table).sort_by("id")
print(hashlib.sha256(b"".join(audio_bytes(out))).hexdigest())
"""


def one(text: str | None, voice: str | None) -> pa.Table:
    return pa.table([["a"], [text], [voice]], schema=SENTENCES)


def test_adds_the_columns_of_a_record() -> None:
    spoken = Speak.stage(SpeakSettings(sampling_rate=8000))
    given = next(requests("labelled", 6, voices_of("labelled")))
    out = spoken.build(1)(given)
    assert out["reject_reason"].null_count == 6
    assert out.drop_columns("reject_reason").schema.equals(spoken.output_schema(SENTENCES))
    assert out["id"].equals(given["id"])
    assert out["text"].equals(given["text"])
    assert out["speaker"].equals(given["voice"])
    assert set(out["label_source"].to_pylist()) == {"gold"}
    for data, seconds in zip(audio_bytes(out), out["duration"].to_pylist(), strict=True):
        assert data is not None
        samples, rate = decode(data)
        assert rate == 8000
        assert len(samples) == round(seconds * 8000)
        assert 0.7 < seconds < 5.0
        assert 0.02 < np.abs(samples).max() < 0.97


def test_unlabelled_output_holds_no_text() -> None:
    out = Speak.stage(SpeakSettings(keep_text=False)).build(1)(next(requests("unlabelled", 3, voices_of("unlabelled"))))
    assert out["text"].null_count == 3
    assert out["label_source"].null_count == 3
    assert out["audio"].null_count == 0


def test_same_bytes_in_any_order_and_any_process() -> None:
    orders = [list(range(12)), list(np.random.default_rng(0).permutation(12))]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", DIGEST, ",".join(map(str, order))], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for order in orders
    ]
    digests = {process.communicate(timeout=200)[0] for process in processes}
    table = next(requests("labelled", 12, voices_of("labelled", "mixed"), seed=5))
    actor = Speak.stage().build(9)
    pieces = [audio_bytes(actor(table.slice(i, 1)))[0] or b"" for i in range(12)]
    assert digests == {hashlib.sha256(b"".join(pieces)).hexdigest() + "\n"}


@pytest.mark.parametrize("choice", ["neural", "mixed"])
def test_sentences_leave_room_for_one_letter_a_frame(choice: VoiceChoice) -> None:
    """CTC needs a frame per letter, and one more between equal ones; 25 frames per second are common."""
    out = Speak.stage().build(2)(next(requests("unlabelled", 40, voices_of("unlabelled", choice))))
    for text, seconds in zip(out["text"].to_pylist(), out["duration"].to_pylist(), strict=True):
        needed = len(text) + sum(a == b for a, b in itertools.pairwise(text))
        assert 1.1 * needed < 25 * seconds


def test_every_voice_speaks_and_differs() -> None:
    for choice in TRAIN_VOICES:
        assert set(TRAIN_VOICES[choice]).isdisjoint(TEST_VOICES[choice])
        assert len(set(TRAIN_VOICES[choice])) == len(TRAIN_VOICES[choice])
    voices = list(dict.fromkeys(itertools.chain(*TRAIN_VOICES.values(), *TEST_VOICES.values())))
    ids = [f"v{i}" for i in range(len(voices))]
    out = Speak.stage().build(0)(pa.table([ids, ["turn on the lights"] * len(voices), voices], schema=SENTENCES))
    assert out["reject_reason"].null_count == len(voices)
    sounds = audio_bytes(out)
    assert len(set(sounds)) == len(voices)
    for data in sounds:
        samples, rate = decode(data or b"")
        assert 0.6 < len(samples) / rate < 4.0
        assert -38 < 10 * np.log10(np.mean(samples**2)) < -18


def test_one_voice_says_one_text_differently_in_each_record() -> None:
    for voice in ("espeak:en-us+m3", "hibari:heart"):
        rows = pa.table([["a", "b"], ["call anna please"] * 2, [voice] * 2], schema=SENTENCES)
        out = Speak.stage().build(0)(rows)
        first, second = audio_bytes(out)
        assert first != second


def test_tract_moves_the_formants() -> None:
    def centre(tract: float) -> float:
        out = Speak.stage().build(0)(one("say see me three fees", f"espeak:en-us+m3,tract={tract}"))
        samples, rate = decode(audio_bytes(out)[0] or b"")
        power = np.abs(np.fft.rfft(samples)) ** 2
        f = np.fft.rfftfreq(len(samples), 1 / rate)
        high = f > 1200
        return float((f * power)[high].sum() / power[high].sum())

    assert centre(1.2) > 1.1 * centre(0.9)


@pytest.mark.parametrize(
    ("text", "voice", "reason"),
    [
        ("room 12", "espeak:en-us", "letters"),
        ("", "espeak:en-us", "letters"),
        (None, "espeak:en-us", "letters"),
        ("' '", "espeak:en-us", "letters"),
        ("играй музыку", "espeak:en-us", "letters"),
        ("go " * 200, "espeak:en-us", "longer"),
        ("call anna", "espeak:klingon", "unknown voice"),
        ("call anna", "espeak:en-us+nobody", "unknown voice"),
        ("call anna", "espeak:en-xx", "unknown voice"),
        ("call anna", "hibari:emma", "unknown voice"),
        ("call anna", "festival:kal", "unknown voice"),
        ("call anna", "espeak:en-us,tract=9", "unknown voice"),
        ("call anna", None, "unknown voice"),
    ],
)
def test_unspeakable_texts_are_rejected(text: str | None, voice: str | None, reason: str) -> None:
    out = Speak.stage().build(0)(one(text, voice))
    assert reason in out["reject_reason"][0].as_py()
    assert out["audio"][0].as_py()["bytes"] is None


@pytest.mark.parametrize(
    ("module", "voice", "package"),
    [("espeakng_loader", "espeak:en-us", r"'\.\[espeak\]"), ("hibari", "hibari:heart", "hibari-tts")],
)
def test_a_missing_package_stops_the_run_and_is_named(
    module: str, voice: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(synthesise, "_engine", synthesise._engine.__wrapped__)  # one may be loaded in this process
    with pytest.raises(UserError, match=f"pip install .?{package}"):
        Speak.stage().build(0)(one("call anna", voice))
    with pytest.raises(UserError, match=f"pip install .?{package}"):
        check_voices([voice])


def test_the_default_corpus_needs_no_package_under_the_gpl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    for part in PARTS:
        check_voices(voices_of(part))
        out = Speak.stage().build(0)(next(requests(part, 2, voices_of(part))))
        assert out["reject_reason"].null_count == 2


def test_voice_specs() -> None:
    assert Voice.parse("hibari:heart,tract=0.9,pitch=0.8") == Voice("hibari", "heart", 0.9, 0.8)
    assert Voice.parse("espeak:en-gb-x-rp+f2") == Voice("espeak", "en-gb-x-rp+f2")
    with pytest.raises(ValueError, match="not a voice"):
        Voice.parse("espeak:en us")
    with pytest.raises(SettingsError, match="sampling_rate"):
        SpeakSettings(sampling_rate=100)
    assert isinstance(Speak.stage().build(0), Speak)


def test_an_interrupt_within_espeak_arrives_and_no_sound_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    handle, speak = ctypes.string_at, Speak.stage().build(1)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)

    def interrupted(*given: int) -> bytes:
        os.kill(os.getpid(), signal.SIGTERM)
        return handle(*given)

    monkeypatch.setattr(ctypes, "string_at", interrupted)
    with pytest.raises(KeyboardInterrupt):
        speak(one("lights on", "espeak:en-us"))
    signal.signal(signal.SIGTERM, before)
