"""Voices of synthesised speech: how one is named, and those of the generated corpora."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

VoiceChoice = Literal["neural", "mixed"]


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


def _warped(*bends: tuple[float, float]) -> tuple[str, ...]:
    return tuple(f"hibari:heart,tract={tract},pitch={pitch}" for tract, pitch in bends)


# The warped neural voices have about the phone error of the unmodified voice (0.09 to 0.14 over five requests, by a
# phoneme recogniser of American English). The unmodified voice and some of its copies are held out for testing.
_WARPED = _warped(
    *((0.78, 0.6), (0.80, 0.68), (0.82, 0.56), (0.82, 0.75), (0.84, 0.65), (0.86, 0.6), (0.86, 0.8)),
    *((0.88, 0.7), (0.92, 0.9), (0.95, 1.1), (0.97, 0.85), (1.04, 1.05), (1.06, 0.9), (1.10, 1.1)),
    *((1.13, 0.95), (1.18, 1.15)),
)
_MORE_WARPED = _warped(
    *((0.79, 0.72), (0.81, 0.62), (0.85, 0.57), (0.85, 0.74), (0.88, 0.86), (0.90, 0.66), (0.93, 0.76)),
    *((0.94, 1.0), (0.98, 1.05), (1.0, 0.88), (1.02, 1.15), (1.09, 0.92), (1.12, 1.06), (1.16, 1.02)),
)
_WARPED_TEST = ("hibari:heart", *_warped((0.83, 0.6), (0.9, 0.78), (1.08, 1.0)))

# eSpeak NG's variants that the recogniser understands (phone error at most 0.41, the best 0.25), without robots,
# whispers and echoes. Test voices share no variant with the training voices. They are mixed with neural voices, since a
# test set with all voices of one engine would measure the change of engine, not of noise.
_ESPEAK = (
    *(
        f"espeak:en-us+{v}"
        for v in ("m1", "m3", "m7", "f1", "f3", "f5", "Alex", "Mike", "aunty", "klatt4", "max", "rob", "steph2")
    ),
    *(f"espeak:en-us-nyc+{v}" for v in ("m2", "paul", "f2")),
    *(f"espeak:en-gb-x-rp+{v}" for v in ("f4", "m4", "miguel", "belinda")),
    *(f"espeak:en-gb-x-gbclan+{v}" for v in ("m5", "linda")),
    "espeak:en-gb-x-gbcwmd+quincy",
    "espeak:en-gb-scotland+m6",
)
_ESPEAK_TEST = (
    *(f"espeak:en-us+{v}" for v in ("sandro", "Annie")),
    *(f"espeak:en-gb-x-rp+{v}" for v in ("michel", "steph")),
    "espeak:en-us-nyc+pablo",
    "espeak:en-gb-x-gbclan+iven3",
)

TRAIN_VOICES: Mapping[VoiceChoice, tuple[str, ...]] = {
    "neural": (*_WARPED, *_MORE_WARPED),
    "mixed": (*_ESPEAK, *_WARPED),
}
TEST_VOICES: Mapping[VoiceChoice, tuple[str, ...]] = {
    "neural": (*_WARPED_TEST, *_warped((0.87, 0.66), (0.96, 0.95), (1.03, 0.96), (1.14, 1.1))),
    "mixed": (*_ESPEAK_TEST, *_WARPED_TEST),
}


def voices_of(part: str, choice: VoiceChoice = "neural") -> tuple[str, ...]:
    """Return the voices of a part of a corpus: those of ``development`` and ``test`` are in no other part."""
    return (TEST_VOICES if part in ("development", "test") else TRAIN_VOICES)[choice]
