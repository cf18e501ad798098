"""Speech synthesis: many voices from two Python packages, without downloads of models.

``espeakng-loader`` contains eSpeak NG, a formant synthesiser with accents and voice variants; ``hibari-tts`` contains
one neural voice. Both can be warped to another vocal tract length, which makes more speakers of one voice.
"""

from __future__ import annotations

import ctypes
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.actors.audio import RateSettings, audio_array, encode, resample, set_column
from gristmill.shards.errors import RejectRecord, UserError
from gristmill.shards.schema import SPEECH_FIELDS
from gristmill.shards.stage import Actor

_SPEAKABLE = re.compile(r"[a-z' ]*[a-z][a-z' ]*", re.IGNORECASE)
_LONGEST_TEXT = 400  # characters; a request has 50
_EDGE_DB = -45.0  # dB relative to the peak: quieter edges count as silence
_MAX_SECONDS = 30.0


@dataclass(frozen=True)
class Voice:
    """A voice: the engine, the engine's name for the voice, and modifications.

    ``tract`` scales all frequencies (1.1: a shorter vocal tract, formants 10 % higher); ``pitch`` is the engine's:
    0 to 99 with 50 as the voice's own for espeak, a factor on the fundamental for hibari.
    """

    engine: str
    name: str
    tract: float = 1.0
    pitch: float | None = None

    @classmethod
    def parse(cls, spec: str) -> Voice:
        """Read ``engine:name[,tract=X][,pitch=Y]``; raises ``ValueError`` on anything else."""
        match = re.fullmatch(r"(espeak|hibari):([\w+-]+)((?:,(?:tract|pitch)=\d+(?:\.\d+)?)*)", spec)
        if not match:
            raise ValueError(f"{spec!r} is not a voice")
        bends = dict(pair.split("=") for pair in match[3].split(",")[1:])
        voice = cls(match[1], match[2], **{key: float(value) for key, value in bends.items()})
        if not 0.5 <= voice.tract <= 2.0:
            raise ValueError(f"{spec!r}: tract must be in 0.5 to 2")
        return voice


# The voices are eSpeak NG's variants that a phoneme recogniser understands (phone error at most 0.41 over five
# requests in American English, the best 0.25), without robots, whispers and echoes. The warped neural voices have
# about the phone error of the unmodified voice (0.09 to 0.14). Test voices share no espeak variant with the training
# voices; the unmodified neural voice is held out, its warped copies on either side are not: a test set with all voices
# of one engine would measure the change of engine, not of noise.
TRAIN_VOICES: tuple[str, ...] = (
    *(
        f"espeak:en-us+{v}"
        for v in ("m1", "m3", "m7", "f1", "f3", "f5", "Alex", "Mike", "aunty", "klatt4", "max", "rob", "steph2")
    ),
    *(f"espeak:en-us-nyc+{v}" for v in ("m2", "paul", "f2")),
    *(f"espeak:en-gb-x-rp+{v}" for v in ("f4", "m4", "miguel", "belinda")),
    *(f"espeak:en-gb-x-gbclan+{v}" for v in ("m5", "linda")),
    "espeak:en-gb-x-gbcwmd+quincy",
    "espeak:en-gb-scotland+m6",
    *(
        f"hibari:heart,tract={tract},pitch={pitch}"
        for tract, pitch in (
            *((0.78, 0.6), (0.80, 0.68), (0.82, 0.56), (0.82, 0.75), (0.84, 0.65), (0.86, 0.6), (0.86, 0.8)),
            *((0.88, 0.7), (0.92, 0.9), (0.95, 1.1), (0.97, 0.85), (1.04, 1.05), (1.06, 0.9), (1.10, 1.1)),
            *((1.13, 0.95), (1.18, 1.15)),
        )
    ),
)
TEST_VOICES: tuple[str, ...] = (
    *(f"espeak:en-us+{v}" for v in ("sandro", "Annie")),
    *(f"espeak:en-gb-x-rp+{v}" for v in ("michel", "steph")),
    "espeak:en-us-nyc+pablo",
    "espeak:en-gb-x-gbclan+iven3",
    "hibari:heart",
    *(f"hibari:heart,tract={t},pitch={p}" for t, p in ((0.83, 0.6), (0.9, 0.78), (1.08, 1.0))),
)


def voices_of(part: str) -> tuple[str, ...]:
    """Return the voices of a part of a corpus: those of ``test`` are in no other part."""
    return TEST_VOICES if part == "test" else TRAIN_VOICES


class Espeak:
    """eSpeak NG (https://github.com/espeak-ng/espeak-ng) through ctypes; 16-bit sound at 22,050 Hz.

    The library keeps state from one utterance to the next (phase, filters, echo), so the sound of a text depends on the
    previous one. Only a freshly loaded library is in a known state; loading takes 4 ms.
    """

    rate = 22050
    _lock = threading.Lock()  # the library is global to the process: one utterance at a time
    _callback_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError:
            raise UserError("this voice needs the package espeakng-loader: pip install espeakng-loader") from None
        if not hasattr(os, "memfd_create"):
            raise UserError("espeak voices are available on Linux only: give a corpus of recorded speech instead")
        self._data = espeakng_loader.get_data_path().encode()
        self._variants = {v.name for v in Path(espeakng_loader.get_data_path(), "voices", "!v").iterdir()}
        # A private copy: if the library were in use elsewhere in the process, closing it would not reset its state.
        with open(espeakng_loader.get_library_path(), "rb") as source:
            self._copy = os.memfd_create("espeak-ng")
            with open(self._copy, "wb", closefd=False) as copy:
                copy.write(source.read())
        self._path = f"/proc/self/fd/{self._copy}"
        self._libc = ctypes.CDLL(None)

    def speak(self, text: str, voice: Voice, pace: float, lift: float, spread: float, seed: int) -> np.ndarray:
        """Return float samples. ``pace`` 1 is 140 words a minute; ``lift`` and ``spread`` are -1 to 1."""
        language, plus, variant = voice.name.partition("+")
        # The library itself ignores unknown variants, and speaks English for unknown languages.
        if not language.startswith("en-") or (plus and variant not in self._variants):
            raise RejectRecord(f"unknown voice espeak:{voice.name}")
        pitch = (50.0 if voice.pitch is None else voice.pitch) + 10.0 * lift
        # rate, volume (low enough that no voice clips), pitch, range, no gap between words
        settings = {1: 140 * pace, 2: 55, 3: pitch, 4: 50 + 25 * spread, 7: 0}
        with self._lock:
            return self._speak(text.encode(), voice.name.encode(), settings, seed)

    def _speak(self, text: bytes, name: bytes, settings: dict[int, float], seed: int) -> np.ndarray:
        import _ctypes

        chunks: list[bytes] = []

        def take(samples: int | None, count: int, _events: int | None) -> int:
            if samples and count > 0:
                chunks.append(ctypes.string_at(samples, 2 * count))
            return 0

        callback = self._callback_type(take)
        library = ctypes.CDLL(self._path)
        try:
            # 2: no sound card, the call returns when synthesis is complete; 0x8000: never exit the process
            if library.espeak_Initialize(2, 0, self._data, 0x8000) != self.rate:
                raise RuntimeError("eSpeak NG did not start")
            library.espeak_SetSynthCallback(callback)
            if library.espeak_SetVoiceByName(name):
                raise RejectRecord(f"unknown voice espeak:{name.decode()}")
            for key, value in settings.items():
                library.espeak_SetParameter(key, round(value), 0)
            # Some voices' noise comes from the library's generator, some from the C library's.
            library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
            self._libc.srand(seed)
            if library.espeak_Synth(text, len(text) + 1, 0, 1, 0, 1, None, None):
                raise RuntimeError("eSpeak NG did not speak")
            library.espeak_Terminate()
        finally:
            _ctypes.dlclose(library._handle)
        return np.frombuffer(b"".join(chunks), np.int16).astype(np.float32) / 32768.0


class Hibari:
    """The neural voice ``heart`` of hibari-tts (Kokoro-82M distilled to 8 MB), on one thread; 24,000 Hz."""

    rate = 24000

    def __init__(self) -> None:
        try:
            from hibari import Hibari as Synthesiser
            from hibari import dsp
        except ImportError:
            raise UserError("this voice needs the package hibari-tts: pip install hibari-tts") from None
        self._synthesiser = Synthesiser(voice="heart", threads=1)  # the only voice in the package
        self._synth: Callable[..., np.ndarray] = dsp.synth

    def speak(self, text: str, voice: Voice, pace: float, lift: float, spread: float, seed: int) -> np.ndarray:
        """Return float samples. ``pace`` 1 is a little below the voice's own; ``lift`` and ``spread`` are -1 to 1."""
        if voice.name != "heart":
            raise RejectRecord(f"unknown voice hibari:{voice.name}")
        rng = np.random.default_rng(seed)
        parts = [self._sentence(p, voice, pace, lift, spread, rng) for p in self._synthesiser.phonemize(text)]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _sentence(
        self, phonemes: str, voice: Voice, pace: float, lift: float, spread: float, rng: np.random.Generator
    ) -> np.ndarray:
        ids = np.asarray([self._synthesiser.ids(phonemes)], np.int64)
        speed = np.asarray([0.88 * pace], np.float32)
        *spectrum, f0 = (o[0].copy() for o in self._synthesiser.sess.run(None, {"ids": ids, "speed": speed}))
        voiced = f0 > 40.0
        if voiced.any():
            middle = float(np.exp(np.log(f0[voiced]).mean()))
            factor = (1.0 if voice.pitch is None else voice.pitch) * 1.12**lift
            f0[voiced] = middle * factor * (f0[voiced] / middle) ** (1.0 + 0.4 * spread)
        return self._synth(*spectrum, f0, rng)


_ENGINES: dict[str, Callable[[], Any]] = {"espeak": cache(Espeak), "hibari": cache(Hibari)}


class SpeakSettings(RateSettings):
    """Settings of the synthesis."""

    keep_text: bool = True
    """Whether records keep their text, with ``label_source`` "gold"; if false, the corpus is unlabelled."""


class Speak(Actor):
    """Speaks each record's ``text`` with its ``voice``; pace, pitch, pitch range, level and margins are drawn.

    Adds the columns of ``SPEECH``. Text other than letters, apostrophes and spaces, unknown voices and silent results
    are rejected.
    """

    name = "speak"
    adds = SPEECH_FIELDS[1:]
    drops = ("voice",)
    seeded = True
    settings: SpeakSettings

    def __init__(self, settings: SpeakSettings, rng: Callable[[str], np.random.Generator]) -> None:
        super().__init__(settings)
        self._rng = rng
        self._engines = {name: make() for name, make in _ENGINES.items()}  # now: a missing package stops the run

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``audio``, or with ``reject_reason`` where there is none."""
        rows = zip(*(batch[c].to_pylist() for c in ("id", "text", "voice")), strict=True)
        sounds: list[np.ndarray | None] = []
        reasons: list[str | None] = []
        for key, text, spec in rows:
            try:
                sounds.append(self._speak(key, text, spec))
                reasons.append(None)
            except RejectRecord as refused:
                sounds.append(None)
                reasons.append(refused.reason)
        n, rate, kept = len(batch), self.settings.sampling_rate, self.settings.keep_text
        texts = batch["text"].combine_chunks() if kept else pa.nulls(n, pa.string())
        values = {
            "parent_id": pa.nulls(n, pa.string()),
            "audio": audio_array([None if s is None else encode(s, rate) for s in sounds]),
            "sampling_rate": pa.array([rate] * n, pa.int32()),
            "duration": pa.array([None if s is None else len(s) / rate for s in sounds], pa.float64()),
            "text": texts,
            "lang": pa.array(["en"] * n),
            "speaker": batch["voice"].combine_chunks(),
            "label_source": pa.array(["gold" if kept else None] * n, pa.string()),
            "confidence": pa.nulls(n, pa.float32()),
            "reject_reason": pa.array(reasons, pa.string()),
        }
        for name, column in values.items():
            batch = set_column(batch, name, column)
        return batch.drop_columns("voice")

    def _speak(self, key: str, text: str | None, spec: str | None) -> np.ndarray:
        if not text or not _SPEAKABLE.fullmatch(text):
            raise RejectRecord("text is not made of letters, apostrophes and spaces")
        if len(text) > _LONGEST_TEXT:
            raise RejectRecord(f"text is longer than {_LONGEST_TEXT} characters")
        try:
            voice = Voice.parse(spec or "")
        except ValueError:
            raise RejectRecord(f"unknown voice {spec}") from None
        rng = self._rng(key)
        pace = float(np.exp(rng.uniform(np.log(0.85), np.log(1.1)))) / voice.tract
        lift, spread = rng.uniform(-1.0, 1.0, size=2)
        seed = int(rng.integers(1, 2**31))
        level, before, after = rng.uniform((-30.0, 0.08, 0.12), (-20.0, 0.25, 0.30))
        engine = self._engines[voice.engine]
        sound = engine.speak(text, voice, pace, float(lift), float(spread), seed)
        return self._finish(sound, round(engine.rate * voice.tract), level, before, after)

    def _finish(self, sound: np.ndarray, rate: int, level: float, before: float, after: float) -> np.ndarray:
        """Resample (which warps the voice, if ``rate`` is not the engine's), trim, scale to ``level``, add margins."""
        target = self.settings.sampling_rate
        sound = resample(sound, rate, target)
        peak = float(np.abs(sound).max(initial=0.0))
        if peak < 1e-4:
            raise RejectRecord("the voice said nothing")
        loud = np.flatnonzero(np.abs(sound) > peak * 10 ** (_EDGE_DB / 20))
        sound = sound[loud[0] : loud[-1] + 1]
        if len(sound) > _MAX_SECONDS * target:
            raise RejectRecord(f"speech is longer than {_MAX_SECONDS:.0f} s")
        gain = 10 ** (level / 20) / float(np.sqrt(np.mean(np.square(sound, dtype=np.float64))))
        gain = min(gain, 0.95 / float(np.abs(sound).max()))
        return np.pad(sound * np.float32(gain), (int(before * target), int(after * target)))
