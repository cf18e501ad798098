"""Impulse responses per second of one core's time, against pyroomacoustics' exact image method, in the same rooms.

    python -m benchmarks.rooms [--seconds 5] [--seed 0]

Beside the rate it prints the errors: of the RT60 against the declared one, and of the direct-to-reverberant ratio
against that of the exact method.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
import argparse
import time
from collections.abc import Callable

from gristmill.models.speech import rooms

import numpy as np

RATE = 16000


def rate_of(make: Callable[[int], np.ndarray], seconds: float) -> tuple[float, list[np.ndarray]]:
    """Return responses per second and the responses, for as many rooms as fit in the time (at least two)."""
    made: list[np.ndarray] = []
    start = time.process_time()
    while len(made) < 2 or time.process_time() - start < seconds:
        made.append(make(len(made)))
    return sum(map(len, made)) / (time.process_time() - start), made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds per cell")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(f"one core, {RATE} Hz, 4 sources a room, seed {args.seed}; drr: difference to exact, in the same rooms")
    print(f"{'RT60 s':>7} {'ours/s':>8} {'exact/s':>8} {'ratio':>8} {'rt60 err':>9} {'exact err':>9} {'drr dB':>7}")
    for rt60 in (0.3, 0.5, 0.8):
        settings = rooms.RoomSettings(rt60=(rt60, rt60))

        def room(number: int, settings: rooms.RoomSettings = settings) -> rooms.Room:
            return rooms.draw_room(np.random.default_rng([args.seed, number]), settings)

        def ours(number: int, room: Callable[[int], rooms.Room] = room) -> np.ndarray:
            return rooms.impulse_responses(room(number), RATE, np.random.default_rng([args.seed, number, 1]))

        def exact(number: int, room: Callable[[int], rooms.Room] = room) -> np.ndarray:
            return rooms.exact_impulse_responses(room(number), RATE)

        ours(0), exact(0)
        fast, made = rate_of(ours, args.seconds)
        slow, golden = rate_of(exact, args.seconds)
        ratios = [
            abs(rooms.direct_to_reverberant(a, RATE) - rooms.direct_to_reverberant(b, RATE))
            for one, other in zip(made, golden, strict=False)
            for a, b in zip(one, other, strict=True)
        ]
        errors = [
            np.median([abs(rooms.reverberation_time(row, RATE) / rt60 - 1) for r in rs[:50] for row in r])
            for rs in (made, golden)
        ]
        print(
            f"{rt60:7.1f} {fast:8.0f} {slow:8.1f} {fast / slow:8.0f} {errors[0]:9.1%} {errors[1]:9.1%} "
            f"{np.median(ratios):7.2f}"
        )


if __name__ == "__main__":
    main()
