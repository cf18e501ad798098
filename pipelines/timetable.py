"""How long results take that are made side by side: a timetable, as the schedule of a run would have it."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Booking:
    """One result of a run: the ``seconds`` that it takes on as many workers as it can keep busy."""

    seconds: float
    needs: Sequence[int] = ()  # places of the results that must be there before, ahead of its own
    workers: int = 1  # that it keeps busy; 0: the driver makes it itself
    divides: bool = False  # whether fewer do too, and take longer, as those of a step


@dataclass
class _Going:
    """A result that is being made by ``held`` workers: ``left`` seconds of all that it can keep busy."""

    place: int
    left: float
    held: int


def span(bookings: Sequence[Booking], workers: int) -> float:
    """Return the seconds in which results are made by a number of workers, those with most behind them first.

    Workers that are free help with what can be divided. The driver's own are done one after the other, beside the
    workers; without workers it does all of them itself.

    Example:
        >>> texts, long, short = Booking(2.0, workers=0), Booking(6.0, [0]), Booking(3.0, [0])
        >>> [span([texts, long, short, Booking(2.0, [2])], workers) for workers in (0, 1, 2)]
        [13.0, 13.0, 8.0]
        >>> span([Booking(4.0, workers=4, divides=True), Booking(6.0)], 2)  # 22 s of work for two
        11.0
    """
    if not workers:
        return sum(booking.seconds for booking in bookings)
    ahead = [0.0] * len(bookings)
    waits = [len(set(booking.needs)) for booking in bookings]
    users: list[list[int]] = [[] for _ in bookings]
    for place in reversed(range(len(bookings))):
        ahead[place] += bookings[place].seconds
        for need in set(bookings[place].needs):
            ahead[need] = max(ahead[need], ahead[place])
            users[need].append(place)
    ready: tuple[list[tuple[float, int]], list[tuple[float, int]]] = [], []  # for the driver, for workers
    going: list[_Going] = []
    free, driver, now = workers, True, 0.0

    def offer(place: int) -> None:
        heapq.heappush(ready[bookings[place].workers > 0], (-ahead[place], place))

    for place, open_needs in enumerate(waits):
        if not open_needs:
            offer(place)
    while any(ready) or going:
        if ready[0] and driver:
            place, driver = heapq.heappop(ready[0])[1], False
            going.append(_Going(place, bookings[place].seconds, 0))
        while ready[1]:
            booking = bookings[ready[1][0][1]]
            held = min(booking.workers, workers)
            if free < (1 if booking.divides else held):
                break
            held = min(held, free)
            free -= held
            going.append(_Going(heapq.heappop(ready[1])[1], booking.seconds, held))
        for one in going:
            booking = bookings[one.place]
            if booking.divides and free:
                more = min(free, booking.workers - one.held)
                one.held, free = one.held + more, free - more
        took = min(one.left / _rate(bookings[one.place], one.held) for one in going)
        now += took
        still: list[_Going] = []
        for one in going:
            one.left -= took * _rate(bookings[one.place], one.held)
            if one.left > 1e-9 * max(1.0, bookings[one.place].seconds):
                still.append(one)
                continue
            free, driver = free + one.held, driver or bookings[one.place].workers == 0
            for user in users[one.place]:
                waits[user] -= 1
                if not waits[user]:
                    offer(user)
        going = still
    return now


def _rate(booking: Booking, held: int) -> float:
    """Return the share of its pace that a result has: what cannot be divided runs as one that has all it asks for."""
    return held / booking.workers if booking.divides and held else 1.0
