"""Speech synthesis: many voices from Python packages, without downloads of models.

``hibari-tts`` contains one neural voice; eSpeak NG, a formant synthesiser with accents and voice variants, is an extra
(:mod:`gristmill.actors.speech.espeak`). Both can be warped to another vocal tract length, which makes more speakers of
one voice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa

from gristmill.actors.audio import RateSettings, audio_array, encode, resample, set_column
from gristmill.actors.speech.espeak import Espeak
from gristmill.actors.speech.voices import Voice
from gristmill.models.portable_graph import open_portable
from gristmill.shards.errors import RejectRecord, UserError
from gristmill.shards.schema import SPEECH_FIELDS
from gristmill.shards.stage import Actor

_SPEAKABLE = re.compile(r"[a-z' ]*[a-z][a-z' ]*", re.IGNORECASE)
_LONGEST_TEXT = 400  # characters; a request has 50
_EDGE_DB = -45.0  # dB relative to the peak: quieter edges count as silence
_MAX_SECONDS = 30.0


class Hibari:
    """The neural voice ``heart`` of hibari-tts (Kokoro-82M distilled to 8 MB), on one thread; 24,000 Hz.

    Its graphs are run as :func:`~gristmill.models.portable_graph.portable` ones: a voice sounds alike on all machines.
    """

    rate = 24000

    @staticmethod
    def check() -> None:
        """Check that this engine can be used here.

        Raises:
            UserError: the package is not installed.
        """
        if find_spec("hibari") is None:
            raise UserError("hibari voices need a package that is not installed: run `pip install hibari-tts`")

    def __init__(self) -> None:
        self.check()
        from hibari import Hibari as Synthesiser
        from hibari import dsp
        from hibari.g2p import ASSETS, G2P
        from hibari.g2p.oov import OOV

        # The only voice that the package contains.
        unknown = OOV(session=open_portable(Path(ASSETS, "oov.onnx")))
        self._synthesiser = Synthesiser(voice="heart", threads=1, g2p=G2P(oov=unknown))
        self._synthesiser.sess = open_portable(self._synthesiser.model_path)
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


_ENGINES: dict[str, type[Espeak] | type[Hibari]] = {"espeak": Espeak, "hibari": Hibari}


@cache
def _engine(name: str) -> Espeak | Hibari:
    """Return the one engine of this name in the process; the first call loads it."""
    return _ENGINES[name]()


def check_voices(voices: Iterable[str]) -> None:
    """Check that the engines of some voices can be used here.

    Raises:
        UserError: one is not installed.

    Example:
        >>> check_voices(["hibari:heart"])
    """
    for name in sorted({Voice.parse(spec).engine for spec in voices}):
        _ENGINES[name].check()


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
    version = 2  # the same bits on all processors
    adds = SPEECH_FIELDS[1:]
    drops = ("voice",)
    seeded = True
    settings: SpeakSettings

    def __init__(self, settings: SpeakSettings, rng: Callable[[str], np.random.Generator]) -> None:
        super().__init__(settings)
        self._rng = rng
        if find_spec("hibari") is not None:  # not at the first record, whose time a plan takes for that of all
            _engine("hibari")

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
        engine = _engine(voice.engine)  # a missing package stops the run: it is no fault of the record
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
