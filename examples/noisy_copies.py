"""Make noisy copies of utterances: each in a room of its own, with one to three noises in it.

python examples/noisy_copies.py
"""

import tempfile

from gristmill.actors.audio import audio_array, encode
from gristmill.actors.speech.augment import Augment, AugmentSettings
from gristmill.actors.speech.banks import (
    GeneratedNoiseSettings,
    RoomBankSettings,
    build_noise_bank_generated,
    build_room_bank,
)
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.run import Run
from gristmill.shards.step import Step

import numpy as np
import pyarrow as pa

RATE = 16000  # Hz, of speech and banks


def main(folder: str) -> None:
    """Make banks of noises and rooms, and two copies of each utterance."""
    noise = build_noise_bank_generated(f"{folder}/noise", GeneratedNoiseSettings(generated=8, seconds=3), rate=RATE)
    rooms = build_room_bank(f"{folder}/rooms", RoomBankSettings(count=4), noises=3, rate=RATE)

    tones = [0.3 * np.sin(2 * np.pi * pitch * np.arange(RATE) / RATE) for pitch in (220, 440, 880)]
    audio = audio_array([encode(tone, RATE) for tone in tones])  # FLAC, in the column of a record
    speech = pa.table({"id": ["a", "b", "c"], "audio": audio, "duration": [1.0, 1.0, 1.0]})

    run = Run(f"{folder}/out", InProcessRunner(), seed=7)
    stage = Augment.stage(AugmentSettings(copies=2, snr=(5, 15), noises=(1, 3)), noise=noise, rooms=rooms)
    noisy = run.step(Step("noisy", (stage,), run.table("speech", speech)))
    for row in noisy.read(0).to_pylist():
        print(f"{row['id']} of {row['parent_id']}: {row['snr']:.1f} dB, RT60 {row['rt60']:.2f} s, {row['noise_ids']}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(name)
