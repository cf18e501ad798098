"""The goals of sessions, and the pairs in which one follows another: reducers over turns dealt by ``session``.

The goal of a turn is the domain and intent of its chosen interpretation. Turns that say one thing again are one
request, with the goal of the last of them, so that a rephrase is never a goal of its own. Each goal and each pair
counts once in a session. Of a session a reducer holds the last few requests, the goals and the pairs, however long it
is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa
from pydantic import Field

from gristmill.models.sessions.goals import overlap, pieces
from gristmill.shards.errors import RejectRecord
from gristmill.shards.reducers import Reducer
from gristmill.shards.settings import Settings

LOW = pa.field("low", pa.string())  # the two goals of a pair in the order of their names: the key of both directions
HIGH = pa.field("high", pa.string())
FORWARD = pa.field("forward", pa.bool_())  # whether the latent goal is the one at HIGH
DIRECT = pa.field("direct", pa.string())
LATENT = pa.field("latent", pa.string())
GOAL = pa.field("goal", pa.string())
USER = pa.field("user", pa.string())
SHARED = pa.field("shared", pa.int64())  # sessions in which the two have a slot value in common
EXAMPLE = pa.field("example", pa.list_(pa.string()))  # the two texts
REPHRASED = pa.field("rephrased", pa.int64())  # sessions in which the second says the first again
COUNTED = (
    DIRECT,
    LATENT,
    pa.field("support", pa.int64()),  # sessions in which the latent goal follows the direct one
    pa.field("backward", pa.int64()),  # sessions in which it is the other way round
    pa.field("users", pa.int64()),
    SHARED,
    REPHRASED,
    EXAMPLE,
)
NO_PAIR = "no pair of goals"
_TURNS = ("id", "turn", "time", "user", "text", "tokens", "domain", "intent", "slots", "succeeded")


class GoalPairSettings(Settings):
    """What is a goal, and when one follows another.

    Its window is of minutes, where those of pairs and chains are of seconds: what a user wants next comes when the
    first is done, and another attempt at the same comes at once.
    """

    slots: bool = False
    """Whether the names of slots belong to a goal: ``light/on`` of a room is then another one than of a lamp."""
    window: int = Field(1, ge=1)
    """How many requests after a goal the latent one may come."""
    seconds: float | None = Field(600.0, gt=0)
    """Most seconds between the two, where both times are known; ``null``: any."""
    rephrase: str | None = None
    """A column of the turns with the probability (or the fact) that a turn says again what the turn before it said;
    ``null``: only words tell."""
    threshold: float = Field(0.5, ge=0, le=1)
    """The probability from which it does."""
    overlap: float = Field(0.4, gt=0, le=1)
    """Share of common words and groups of three letters from which two turns are rephrases."""
    failures: bool = False
    """Whether turns that are known to have failed are goals, too."""


class GoalTurn(NamedTuple):
    """What counts of a turn: its goal, the values of its slots, what texts are compared by, and its time."""

    goal: str
    slots: frozenset[tuple[str, str]]
    pieces: frozenset[str]
    time: float | None
    text: str

    @property
    def values(self) -> frozenset[str]:
        """The values of the slots."""
        return frozenset(value for _, value in self.slots)


@dataclass
class GoalRequest:
    """Turns of a session that say one thing: the last of them, and the goals of those before."""

    turn: GoalTurn | None  # None: it has no goal
    pieces: list[frozenset[str]]
    before: list[str] = field(default_factory=list)
    text: str = ""


class GoalNames(NamedTuple):
    """A pair of goals as it is stored: by the order of their names."""

    low: str
    high: str
    forward: bool


def goal_name(domain: str | None, intent: str | None, names: Iterable[str] = ()) -> str | None:
    """Return the name of a goal, ``None`` without a domain or an intent.

    Example:
        >>> goal_name("lights", "turn_on", ["room"]), goal_name("lights", None)
        ('lights/turn_on(room)', None)
    """
    if not domain or not intent:
        return None
    own = ",".join(sorted(set(names)))
    return f"{domain}/{intent}" + (f"({own})" if own else "")


class _SessionReducer(Reducer):
    order = ("turn", "time")
    settings: GoalPairSettings

    @classmethod
    def contract(cls, settings: GoalPairSettings) -> Mapping[str, Any]:
        """Return the columns that are read."""
        return {"columns": (*_TURNS, *([settings.rephrase] if settings.rephrase else []))}

    def _requests(self, tables: Iterator[pa.Table]) -> Iterator[tuple[GoalRequest, bool, str | None]]:
        """Yield each request as it stands after each of its turns, with whether that turn begins it, and its user."""
        own, now = self.settings, GoalRequest(None, [])
        begun = False
        for table in tables:
            for row in table.to_pylist():
                said = pieces([token.lower() for token in row["tokens"] or (row["text"] or "").split()])
                again = begun and self._again(row, said, now)
                turn = None if row["succeeded"] is False and not own.failures else self._turn(row, said)
                if again:
                    before = [*now.before, *([now.turn.goal] if now.turn else [])][-own.window - 8 :]
                    now = GoalRequest(turn, [*now.pieces[-8:], said], before, row["text"] or "")
                else:
                    now = GoalRequest(turn, [said], [], row["text"] or "")
                begun = True
                yield now, not again, row["user"]

    def _again(self, row: Mapping[str, Any], said: frozenset[str], now: GoalRequest) -> bool:
        own = self.settings
        told = own.rephrase is not None and float(row[own.rephrase] or 0) >= own.threshold
        return told or any(overlap(said, one) >= own.overlap for one in now.pieces)

    def _turn(self, row: Mapping[str, Any], said: frozenset[str]) -> GoalTurn | None:
        slots = row["slots"] or []
        names = [slot["name"] for slot in slots] if self.settings.slots else []
        goal = goal_name(row["domain"], row["intent"], names)
        if goal is None:
            return None
        values = frozenset((slot["name"], (slot["value"] or "").lower()) for slot in slots)
        return GoalTurn(goal, values, said, row["time"], row["text"] or "")


class GoalCounts(_SessionReducer):
    """Yields each goal of a session once; ``first`` is 1 for one of them, so that its sum counts sessions."""

    name = "goal_counts"
    adds = (GOAL, pa.field("first", pa.int64()))

    def group(self, name: str, tables: Iterator[pa.Table]) -> Iterator[dict[str, Any]]:
        """Yield the goals of one session, or one without a name if there is none."""
        found: dict[str, None] = {}
        last: GoalRequest | None = None
        for request, begins, _ in self._requests(tables):
            if begins and last is not None and last.turn is not None:
                found[last.turn.goal] = None
            last = request
        if last is not None and last.turn is not None:
            found[last.turn.goal] = None
        for place, goal in enumerate(found or {"": None}):
            yield {"goal": goal, "first": int(not place)}


@dataclass
class _Pair:
    example: list[str]
    user: str
    support: int = 0
    shared: int = 0
    rephrased: int = 0


class GoalPairs(_SessionReducer):
    """Yields each pair of goals of a session once: a goal, and one of a later request within the window.

    Its columns are the pair by the order of the names (``low``, ``high``, ``forward``), ``user`` (of a session without
    one: the session), ``support`` (1, or 0 of a pair that only rephrases have), ``shared`` and ``rephrased``.
    """

    name = "goal_pairs"
    adds = (LOW, HIGH, FORWARD, USER, pa.field("support", pa.int64()), SHARED, REPHRASED, EXAMPLE)

    def group(self, name: str, tables: Iterator[pa.Table]) -> Iterator[dict[str, Any]]:
        """Yield the pairs of one session."""
        found: dict[tuple[str, str], _Pair] = {}
        held: deque[GoalRequest] = deque(maxlen=self.settings.window + 1)
        user: str | None = None
        for request, begins, said_by in self._requests(tables):
            user = user or said_by
            if begins:
                self._count(held, found, user or name)
                held.append(request)
            else:
                held[-1] = request
        self._count(held, found, user or name)
        if not found:
            raise RejectRecord(NO_PAIR)
        for (direct, latent), pair in found.items():
            names = GoalNames(min(direct, latent), max(direct, latent), direct < latent)
            yield {**names._asdict(), **vars(pair)}

    def _count(self, held: deque[GoalRequest], found: dict[tuple[str, str], _Pair], user: str) -> None:
        """Count the pairs that end with the last request, which is whole now."""
        if not held or held[-1].turn is None:
            return
        last = held[-1].turn
        for goal in held[-1].before:
            if goal != last.goal:
                pair = found.setdefault((goal, last.goal), _Pair([], user))
                pair.rephrased = 1
        for one in list(held)[:-1]:
            first = one.turn
            if first is None or first.goal == last.goal or not self._near(first, last):
                continue
            pair = found.setdefault((first.goal, last.goal), _Pair([], user))
            if overlap(first.pieces, last.pieces) >= self.settings.overlap:
                pair.rephrased = 1
                continue
            pair.support = 1
            pair.shared |= int(bool(first.values & last.values))
            pair.example = pair.example or [first.text, last.text]

    def _near(self, first: GoalTurn, last: GoalTurn) -> bool:
        limit = self.settings.seconds
        known = limit is not None and first.time is not None and last.time is not None
        return not known or last.time - first.time <= limit  # type: ignore[operator]


class CountPairs(Reducer):
    """Counts the sessions and users of both directions of a pair of goals, of any number."""

    name = "count_pairs"
    columns = (LOW.name, HIGH.name, FORWARD.name, USER.name, "support", SHARED.name, REPHRASED.name, EXAMPLE.name)
    order = (FORWARD.name, USER.name)
    adds = COUNTED

    def group(self, name: str, tables: Iterator[pa.Table]) -> Iterator[dict[str, Any]]:
        """Yield a row for each direction in which the pair was seen."""
        counts = {forward: {"support": 0, "users": 0, "shared": 0, "rephrased": 0} for forward in (False, True)}
        example: dict[bool, list[str]] = {False: [], True: []}
        last: tuple[bool, str] | None = None
        goals = ("", "")
        for table in tables:
            for row in table.to_pylist():
                goals, forward = (row["low"], row["high"]), row["forward"]
                for column in ("support", "shared", "rephrased"):
                    counts[forward][column] += row[column]
                if row["support"] and (forward, row["user"]) != last:
                    counts[forward]["users"] += 1
                    last = forward, row["user"]
                example[forward] = example[forward] or row["example"]
        for forward, own in counts.items():
            if own["support"] or own["rephrased"]:
                direct, latent = goals if forward else goals[::-1]
                yield {
                    "direct": direct,
                    "latent": latent,
                    "backward": counts[not forward]["support"],
                    "example": example[forward],
                    **own,
                }
