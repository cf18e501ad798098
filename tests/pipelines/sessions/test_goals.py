"""Latent goals: planted follow-ups are found, rephrases and chance are not, whatever the sessions look like."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gristmill.actors.sessions.goal_pairs import GoalPairs, GoalPairSettings, goal_name
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.run import Run
from gristmill.pipelines.sessions.goals import GoalSettings, goal_truth, mine_goals, score_goals
from gristmill.shards.errors import RejectRecord, UserError
from gristmill.shards.random import RecordRandom
from gristmill.shards.reducers import Reducer
from gristmill.shards.schema import TRUTH_FIELDS, TURN_FIELDS

SCHEMA = pa.schema([*TURN_FIELDS, *TRUTH_FIELDS])
GOALS = 12
PLANTED = {(f"d{n}/i{n}", f"d{n + 1}/i{n + 1}") for n in range(0, 6, 2)}


def row(session: str, turn: int, goal: int, said: str, **more: Any) -> dict[str, Any]:
    """Return a turn of a goal by its number."""
    made = {"id": f"{session}/{turn}", "session": session, "turn": turn, "time": 60.0 * turn, "user": session[-2:]}
    made |= {"text": said, "tokens": said.split(), "domain": f"d{goal}", "intent": f"i{goal}", "slots": []}
    return made | {"role": "first"} | more


def sessions(count: int = 600) -> Iterator[dict[str, Any]]:
    """Yield turns: three goals of a session are drawn; planted ones often follow; goal 8 is misread as 9 first."""
    random = RecordRandom(0, "test sessions")
    for number in range(count):
        name, rng, turn = f"s{number:04d}", random(f"{number}"), 0
        for _ in range(3):
            goal = int(rng.integers(GOALS))
            if goal == 8:
                yield row(name, turn, 9, "switch the boiler of", time=100.0 * turn)
                yield row(name, turn + 1, 8, "switch the boiler off", role="rephrase")
                turn += 2
                continue
            yield row(name, turn, goal, f"goal{goal} please w{rng.integers(99)}")
            turn += 1
            if goal in (0, 2, 4) and rng.random() < 0.5:
                yield row(name, turn, goal + 1, f"goal{goal + 1} now w{rng.integers(99)}", role="follow_up")
                turn += 1


def turns(run: Run, rows: list[dict[str, Any]]) -> Any:
    return run.table("turns", pa.Table.from_pylist(rows, schema=SCHEMA))


def test_planted_follow_ups_are_found_and_no_rephrase(tmp_path: Path) -> None:
    run = Run(str(tmp_path), InProcessRunner())
    given = turns(run, list(sessions()))
    found = mine_goals(run, GoalSettings(), given)
    truth = goal_truth(given, PLANTED)
    assert truth.rephrased == {("d9/i9", "d8/i8")}
    scores = score_goals(found.ranked("npmi"), truth)
    assert (scores.precision, scores.recall, scores.rephrases) == (1.0, 1.0, 0)
    assert "follow_ups: rephrases" in found.follow_ups.seal["reasons"]
    first = found.ranked("npmi")[0]
    assert first["support"] > 40
    assert first["users"] > 30
    assert first["example"][0].startswith("goal")
    counted = score_goals(found.by_count(GoalSettings().follow_ups), truth)
    assert counted.precision < 0.5


def test_a_column_tells_rephrases_that_words_do_not(tmp_path: Path) -> None:
    run = Run(str(tmp_path), InProcessRunner())
    rows = []
    for number in range(40):
        name = f"s{number:03d}"
        rows += [row(name, 0, 1, "boil the kettle"), row(name, 1, 2, "make my tea water hot", role="rephrase")]
        rows += [row(f"t{number:03d}", 0, 3 + number % 4, f"other {number}")]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    plain = mine_goals(run, GoalSettings(), run.table("plain", table))
    assert [(one["direct"], one["latent"]) for one in plain.ranked("npmi")] == [("d1/i1", "d2/i2")]
    chances = pa.array([float(one["role"] == "rephrase") for one in rows])
    told = run.table("told", table.append_column("again", chances))
    aware = mine_goals(run, GoalSettings(pairs=GoalPairSettings(rephrase="again")), told, "_told")
    assert aware.ranked("npmi") == []


def test_pairs_of_one_session() -> None:
    said = [
        row("s", 0, 1, "lamp on", slots=[slot("room", "Kitchen")]),
        row("s", 1, 2, "heat the oven", slots=[slot("where", "kitchen")]),
        row("s", 2, 1, "lamp on in the hall"),
        row("s", 3, 2, "oven please", time=10_000.0),
        row("s", 4, 3, "a song", succeeded=False, time=10_001.0),
    ]
    made = pairs(GoalPairs(GoalPairSettings()), said)
    assert [(one["low"], one["high"], one["forward"], one["shared"]) for one in made] == [
        ("d1/i1", "d2/i2", True, 1),
        ("d1/i1", "d2/i2", False, 0),
    ]  # the third is hours later, the fourth failed
    whole = pairs(GoalPairs(GoalPairSettings(seconds=None, failures=True, window=2)), said)
    assert ("d2/i2", "d3/i3") in {(one["low"], one["high"]) for one in whole}
    with pytest.raises(RejectRecord, match="no pair"):
        pairs(GoalPairs(GoalPairSettings()), said[:1])


def test_a_session_in_pieces_has_the_pairs_of_a_whole_one() -> None:
    rng = np.random.default_rng(0)
    said = [row("s", turn, int(goal), f"w{turn} x{turn}") for turn, goal in enumerate(rng.integers(9, size=500))]
    reducer = GoalPairs(GoalPairSettings(window=3))
    assert pairs(reducer, said) == pairs(reducer, said, 7)


def test_a_turn_without_an_interpretation_is_no_goal(tmp_path: Path) -> None:
    assert goal_name(None, "on") is None
    run = Run(str(tmp_path), InProcessRunner())
    rows = [row("s", 0, 1, "lamp on") | {"domain": None, "text": None, "tokens": None, "slots": None, "user": None}]
    found = mine_goals(run, GoalSettings(), turns(run, rows))
    assert found.ranked("npmi") == []


def test_a_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    run = Run(str(tmp_path), InProcessRunner())
    with pytest.raises(UserError, match=r"pairs\.rephrase is 'again'"):
        mine_goals(run, GoalSettings(pairs=GoalPairSettings(rephrase="again")), turns(run, list(sessions(2))))


def slot(name: str, value: str) -> dict[str, Any]:
    return {"name": name, "value": value, "start": None, "end": None}


def pairs(reducer: Reducer, rows: list[dict[str, Any]], at_once: int = 0) -> list[dict[str, Any]]:
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    size = at_once or len(rows)
    return list(reducer.group("s", (table.slice(at, size) for at in range(0, len(rows), size))))
