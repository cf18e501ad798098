"""Noise and room augmentation on one core: this project against audiomentations, on the same files, in one run.

    python -m benchmarks.augment [--speech FOLDER] [--utterances 40] [--rounds 5] [--seed 0]

Each utterance gets a room and two noises. Results are times real time: seconds of speech per second of processor time
(less affected by other load), in the best of several rounds, with the systems alternating. Comparisons:

- ``ready, same work``: prepared impulse responses; audiomentations also convolves each noise with one, as we do;
- ``ready, dry noise``: audiomentations adds its noises dry, which is less work;
- ``new room``: a new room simulated for each utterance (audiomentations: RoomSimulator, for the speech alone).

Once on samples, once with FLAC input and output by the same two functions for both.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from gristmill.actors import audio
from gristmill.actors.speech import augment, banks
from gristmill.models.speech import mixing, rooms
from gristmill.shards.random import RecordRandom

import numpy as np
import soundfile

RATE = 16000
Work = Callable[[np.ndarray, int], np.ndarray]


def speech(folder: str | None, count: int, seed: int) -> list[np.ndarray]:
    """Read utterances below a folder, or generate noise of similar lengths."""
    files = sorted(p for p in Path(folder).rglob("*") if p.suffix in (".flac", ".wav")) if folder else []
    if files:
        chosen = files[:: max(1, len(files) // count)][:count]
        read = [audio.decode(p.read_bytes()) for p in chosen]
        return [audio.resample(samples, rate, RATE) for samples, rate in read]
    rng = np.random.default_rng(seed)
    return [0.05 * rng.standard_normal(int(s * RATE), dtype=np.float32) for s in rng.uniform(2, 16, count)]


def main() -> None:
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--speech", help="folder of audio; without it, noise of similar lengths")
    parser.add_argument("--utterances", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    given = speech(args.speech, args.utterances, args.seed)
    seconds = sum(map(len, given)) / RATE
    with tempfile.TemporaryDirectory() as folder:
        systems = make_systems(folder, args.seed)
        print(
            f"one core, {len(given)} utterances, {seconds:.0f} s, two noises each, seed {args.seed}, "
            f"best of {args.rounds} rounds; x real time"
        )
        print(f"{'comparison':22} {'audio':8} {'ours':>8} {'peer':>8} {'ratio':>7}")
        for codec in (False, True):
            data = [audio.encode(x, RATE) for x in given]
            for name, (ours, peer, most) in systems.items():
                rounds = args.rounds if most is None else 1
                shorter = slice(0, most)
                best = timed([ours, peer], given[shorter], data[shorter] if codec else None, rounds)
                length = sum(map(len, given[shorter])) / RATE
                fast, slow = (length / t for t in best)
                kind = "FLAC" if codec else "samples"
                print(f"{name:22} {kind:8} {fast:8.0f} {slow:8.0f} {fast / slow:7.1f}", flush=True)


def timed(works: list[Work], given: list[np.ndarray], data: list[bytes] | None, rounds: int) -> list[float]:
    """Return the seconds of each system's fastest round over all utterances."""
    for work in works:
        work(given[0], 0)
    best = [float("inf")] * len(works)
    for _ in range(rounds):
        for place, work in enumerate(works):
            start = time.process_time()
            for number, samples in enumerate(given):
                if data is None:
                    work(samples, number)
                else:
                    audio.encode(np.clip(work(audio.decode(data[number])[0], number), -1, 1), RATE)
            best[place] = min(best[place], time.process_time() - start)
    return best


def make_systems(folder: str, seed: int) -> dict[str, tuple[Work, Work, int | None]]:
    """Build our banks, and the same rooms and noises as files for the peer."""
    import audiomentations as am

    made = banks.GeneratedNoiseSettings(generated=16)  # a quarter is for testing
    noise = banks.build_noise_bank_generated(f"{folder}/n", made, rate=RATE, seed=seed)
    settings = banks.RoomBankSettings(count=50)
    room = banks.build_room_bank(f"{folder}/r", settings, noises=3, rate=RATE, seed=seed)
    bank, scenes = banks.NoiseBank(noise.url), banks.RoomBank(room.url)
    sounds, responses = Path(folder, "sounds"), Path(folder, "responses")
    sounds.mkdir(), responses.mkdir()
    for number in range(len(bank)):
        whole = bank.take(number, 0, round(bank.seconds(number) * RATE))
        soundfile.write(sounds / f"{number}.wav", whole, RATE, subtype="FLOAT")
    for number in range(len(scenes)):
        scene = scenes[number].responses[0]
        soundfile.write(responses / f"{number}.wav", scene, RATE, subtype="FLOAT")

    random = RecordRandom(seed, "augment")
    actor = augment.Augment(augment.AugmentSettings(noises=(2, 2)), noise=noise.url, rooms=room.url, rng=random)
    ours = lambda samples, number: actor.work(samples, random(str(number)))[0]

    def ours_new(samples: np.ndarray, number: int) -> np.ndarray:
        rng = random(str(number))
        made = rooms.impulse_responses(rooms.draw_room(rng, settings), RATE, rng)
        taps = made.shape[1]
        past = mixing.history(taps, rooms.LEAD)
        parts = np.zeros((3, len(samples) + taps - 1), dtype=np.float32)
        parts[0, past : past + len(samples)] = samples
        for place in (1, 2):
            which = int(rng.integers(len(bank)))
            parts[place] = bank.take(which, int(rng.integers(20 * RATE)), parts.shape[1])
        reverberated = mixing.reverberate(parts, made[:3], len(samples))
        return mixing.mix(reverberated, rng.uniform(0, 20, 2), RATE).samples

    # Its cache holds all responses; of noises it reads only the needed part, from files in the page cache.
    reverb = lambda: am.ApplyImpulseResponse(str(responses), p=1.0, leave_length_unchanged=True, lru_cache_size=64)
    add = lambda through: am.AddBackgroundNoise(
        str(sounds), min_snr_db=0.0, max_snr_db=20.0, noise_transform=through, p=1.0
    )
    same = am.Compose([reverb(), add(reverb()), add(reverb())])
    dry = am.Compose([reverb(), add(None), add(None)])
    simulated = am.Compose([am.RoomSimulator(p=1.0, leave_length_unchanged=True), add(None), add(None)])
    call = lambda chain: lambda samples, number: chain(samples, sample_rate=RATE)
    return {
        "ready, same work": (ours, call(same), None),
        "ready, dry noise": (ours, call(dry), None),
        "new room": (ours_new, call(simulated), 8),
    }


if __name__ == "__main__":
    main()
