"""How long results take that are made side by side."""

from __future__ import annotations

import random

import pytest

from gristmill.pipelines.timetable import Booking, span


def drawn(seed: int, results: int = 60) -> list[Booking]:
    """Results with up to three needs; some are the driver's, some need several workers, and some can be divided."""
    dice = random.Random(seed)
    return [
        Booking(
            dice.choice([0.0, 1.0, 3.0, 10.0]),
            dice.sample(range(place), min(place, dice.randrange(4))),
            dice.choice([0, 1, 1, 2, 4]),
            divides=dice.random() < 0.5,
        )
        for place in range(results)
    ]


def path(parts: list[Booking]) -> float:
    """The longest path, on as many workers as each result can keep busy."""
    ends: list[float] = []
    for part in parts:
        ends.append(part.seconds + max((ends[need] for need in part.needs), default=0.0))
    return max(ends)


def test_without_workers_it_is_the_sum() -> None:
    assert span(drawn(0), 0) == sum(part.seconds for part in drawn(0))
    assert span([], 4) == 0.0


@pytest.mark.parametrize("seed", range(8))
def test_it_is_between_the_bounds_of_any_schedule(seed: int) -> None:
    parts = drawn(seed)
    work = sum(part.seconds * part.workers for part in parts)
    driver = sum(part.seconds for part in parts if not part.workers)
    assert span(parts, 1000) >= path(parts) - 1e-6
    assert span([part for part in parts if part.workers], 0) >= 0
    for workers in (4, 8):
        took = span(parts, workers)
        assert took >= max(path(parts), work / workers, driver) - 1e-6
        # No more than a list schedule can take: all is busy but while a path is waited for.
        assert took <= path(parts) + driver + work / (workers - 3) + 1e-6


def test_the_longest_path_goes_first() -> None:
    long = [Booking(5.0), Booking(5.0, [0])]
    assert (
        span(
            [
                *(Booking(1.0) for _ in range(10)),
                *(Booking(p.seconds, [n + 10 for n in p.needs]) for p in long),
            ],
            2,
        )
        == 10
    )


def test_what_needs_several_workers_waits_for_them() -> None:
    assert span([Booking(4.0), Booking(2.0, workers=2)], 2) == 6.0
    assert span([Booking(4.0, workers=8)], 2) == 4.0, "on a smaller machine it is given all of it"


def test_what_can_be_divided_takes_what_is_free() -> None:
    step = Booking(4.0, workers=4, divides=True)
    assert span([step], 4) == 4.0
    assert span([step], 2) == 8.0
    assert span([step, Booking(5.0)], 2) == pytest.approx(5.0 + (16 - 5) / 2), "also when more becomes free"
