"""The simulator of sessions: real utterances, what was heard of them and how it was read, in an order that is drawn.

What is said, heard and read, and whether that failed, is that of the bank. Drawn, by each session's own generator, are:
which users speak and what they want, which wording they choose, whether they try again after a failure, what they ask
for next, the seconds between turns, barge-in, which outcomes are known, and false rephrases (``poison``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field

from gristmill.actors.sessions.bank import SAID, TRUE, UTTERANCES
from gristmill.shards.dataset import SealedSet, open_sealed
from gristmill.shards.errors import UserError
from gristmill.shards.random import RecordRandom
from gristmill.shards.schema import PARENT_ID, TRUTH_FIELDS, TURN_FIELDS
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits

LATER = pa.field("later", pa.bool_())  # whether the session is after those that are learnt from
NUMBER = pa.field("number", pa.int64())  # of a session, from 0 on
DEVICES = ("speaker", "display", "phone")
START = 1_700_000_000.0  # of the first session, in seconds since 1970
SPACING = 30.0  # seconds between the beginnings of sessions


class SimulationSettings(Settings):
    """How sessions are drawn. All of it is invented, and told in the report."""

    sessions: int = Field(4000, ge=1)
    """Sessions in all."""
    later: float = Field(0.3, gt=0, lt=1)
    """Share of the sessions that come after those that are learnt from: the test."""
    users: int = Field(500, ge=1)
    """Users."""
    traffic: float = Field(0.8, ge=0)
    """Exponent of the law of Zipf by which meanings and their wordings are chosen: 0 is uniform."""
    goals: float = Field(1.8, ge=1)
    """Mean of the goals of a session."""
    retry: float = Field(0.75, ge=0, le=1)
    """Probability that a user tries again, in other words, after a failure."""
    tries: int = Field(3, ge=1)
    """Most turns for one goal."""
    poison: float = Field(0.1, ge=0, le=1)
    """Share of the sessions in which what follows a failure at once is another request, and no rephrase."""
    follow_ups: int = Field(8, ge=0)
    """Planted pairs of goals: after the first of a pair, users often want the second."""
    follow: float = Field(0.35, ge=0, le=1)
    """Probability of the second goal after the first."""
    known: float = Field(0.3, ge=0, le=1)
    """Share of the turns whose outcome is known."""
    mistaken: float = Field(0.03, ge=0, le=1)
    """Share of the known outcomes that are wrong."""
    barge_in: float = Field(0.05, ge=0, le=1)
    """Probability that the user speaks into the response to a turn that was read rightly."""
    barge_in_failed: float = Field(0.4, ge=0, le=1)
    """The same of a turn that failed."""
    pause: float = Field(90.0, gt=0)
    """Median of the seconds to another goal."""
    pause_rephrase: float = Field(8.0, gt=0)
    """Median of the seconds to what is said at once after a failure."""


class SaidAs(NamedTuple):
    """What may be said: the place of its meaning in the bank, and its utterance."""

    meaning: int
    utterance: Mapping[str, Any]


class Simulate(Actor):
    """Makes the turns of sessions, given by ``id`` and ``number``, from the bank at ``bank`` (a sealed set of wordings
    by meaning), which a worker holds whole.

    Raises:
        UserError: the bank has no utterance.
    """

    name = "simulate"
    columns = ("id", "number")
    keeps = ()
    adds = (PARENT_ID, *TURN_FIELDS[1:], *TRUTH_FIELDS, LATER)
    fan_out = True
    seeded = True
    batch = BatchLimits(rows=256)
    settings: SimulationSettings

    def __init__(self, settings: SimulationSettings, rng: Callable[[str], np.random.Generator], bank: str) -> None:
        super().__init__(settings)
        self._rng = rng
        tables = open_sealed(bank).tables(["meaning", UTTERANCES.name])
        rows = sorted((row for table in tables for row in table.to_pylist()), key=lambda row: row["meaning"])
        if not rows:
            raise UserError(f"simulation: {bank} has no utterance; expected wordings of some meanings")
        self._meanings = [row["meaning"] for row in rows]
        self._said = [row[UTTERANCES.name] for row in rows]
        goals = [goal_of(said[0]) for said in self._said]
        # Popular meanings are no matter of their names.
        draw = RecordRandom(0, "traffic")
        self._order = sorted(range(len(rows)), key=lambda place: draw(self._meanings[place]).random())
        self._popular = _zipf(len(rows), settings.traffic)
        self._of_goal = {goal: [place for place in self._order if goals[place] == goal] for goal in set(goals)}
        self._goals = goals
        self._next = dict(planted(sorted(self._of_goal), settings.follow_ups))

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the turns of the sessions."""
        made = [
            turn
            for row in batch.select(list(self.columns)).to_pylist()
            for turn in self._session(row["id"], row["number"])
        ]
        schema = pa.schema([TURN_FIELDS[0], *self.adds])
        return pa.Table.from_pylist(made, schema=schema)

    def _session(self, name: str, number: int) -> Iterator[dict[str, Any]]:
        own, rng = self.settings, self._rng(name)
        user = int(own.users * rng.random() ** 2)  # some speak more than others
        at = START + SPACING * number + rng.random() * SPACING
        shared = {
            "parent_id": name,
            "session": name,
            "user": f"user{user:06d}",
            "device": DEVICES[user % len(DEVICES)],
            "rewritten": False,
            "later": number >= round((1 - own.later) * own.sessions),
        }
        for turn, (wording, role, soon) in enumerate(self._wordings(rng)):
            if turn:
                at += float((own.pause_rephrase if soon else own.pause) * np.exp(0.5 * rng.standard_normal()))
            said = wording.utterance
            barge_in = rng.random() < (own.barge_in_failed if said["failed"] else own.barge_in)
            known, mistaken = rng.random() < own.known, rng.random() < own.mistaken
            yield {
                "id": f"{name}/{turn}",
                **shared,
                "turn": turn,
                "time": round(at, 3),
                **{key: said[key] for key in (*SAID, *TRUE)},
                "succeeded": (not said["failed"]) != mistaken if known else None,
                "barge_in": barge_in,
                "meaning": self._meanings[wording.meaning],
                "role": role,
            }

    def _wordings(self, rng: np.random.Generator) -> Iterator[tuple[SaidAs, str, bool]]:
        """Yield what a user says, its role, and whether it is said soon after what was said before."""
        own = self.settings
        poisoned = rng.random() < own.poison
        goal = None
        for _ in range(rng.geometric(1 / own.goals)):
            follows = self._next.get(goal) if goal is not None and rng.random() < own.follow else None
            places = self._of_goal[follows] if follows else self._order
            weights = _zipf(len(places), own.traffic) if follows else self._popular
            meaning = places[_pick(rng, weights)]
            goal, role = self._goals[meaning], "follow_up" if follows else "first"
            left = self._said[meaning]
            for tried in range(own.tries):
                said = left[_pick(rng, _zipf(len(left), own.traffic))]
                yield SaidAs(meaning, said), role, tried > 0
                left = [one for one in left if one["asr_text"] != said["asr_text"]]
                if not said["failed"] or not left or rng.random() >= own.retry:
                    break
                if poisoned:
                    other = self._order[int(rng.integers(len(self._order)))]
                    yield SaidAs(other, self._said[other][int(rng.integers(len(self._said[other])))]), "poison", True
                    break
                role = "rephrase"


def goal_of(utterance: Mapping[str, Any]) -> tuple[str, str]:
    """Return the true goal of an utterance of the bank: its domain and intent."""
    return utterance["true_domain"] or "", utterance["true_intent"] or ""


def planted_in(bank: SealedSet, count: int) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """Return the pairs of goals that are planted in sessions of a bank; see :func:`planted`."""
    rows = (row for table in bank.tables([UTTERANCES.name]) for row in table[UTTERANCES.name].to_pylist())
    return planted(sorted({goal_of(said[0]) for said in rows}), count)


def planted(goals: Sequence[tuple[str, str]], count: int) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """Return the planted pairs of goals (domain, intent): of different goals, each first one once.

    Example:
        >>> len(planted([("music", "play"), ("lights", "on"), ("lights", "off")], 2))
        2
    """
    shuffled = sorted(goals, key=lambda goal: RecordRandom(0, "follow-ups")("\t".join(goal)).random())
    return list(zip(shuffled, [*shuffled[1:], *shuffled[:1]], strict=True))[: count if len(goals) > 1 else 0]


def _zipf(count: int, exponent: float) -> np.ndarray:
    """Return the cumulated weights of ``count`` ranks."""
    return np.cumsum(np.arange(1, count + 1, dtype=np.float64) ** -exponent)


def _pick(rng: np.random.Generator, cumulated: np.ndarray) -> int:
    return int(np.searchsorted(cumulated, rng.random() * cumulated[-1], side="right"))
