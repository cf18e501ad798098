"""Requests with skills from turns: labels of what succeeded, feedback on what failed, corrections after it."""

from __future__ import annotations

import pyarrow as pa
import pytest

from gristmill.actors.sessions.skill_turns import SkillTurns, SkillTurnSettings
from gristmill.actors.sessions.skills import FeedbackSettings, SimulateFeedback
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.run import Run
from gristmill.pipelines.sessions.skill_inputs import turn_requests
from gristmill.shards.random import RecordRandom
from gristmill.shards.schema import TURNS

WRONG, RIGHT = False, True


def turns(*given, session="s"):
    """Turns as (domain, succeeded), or (domain, succeeded, rewritten)."""
    rows = []
    for number, (domain, succeeded, *rewritten) in enumerate(given):
        row = {"id": f"{session}{number}", "session": session, "turn": number, "tokens": ["on"], "domain": domain}
        rows.append(row | {"succeeded": succeeded, "rewritten": bool(rewritten and rewritten[0])})
    return rows


def made(*given, **settings):
    table = pa.Table.from_pylist(turns(*given), schema=TURNS)
    rows = SkillTurns(SkillTurnSettings(**settings)).group("s", iter([table]))
    return {row["id"]: (row["skill"], row["negative"]) for row in rows}


def test_a_failed_turn_is_labelled_by_what_succeeded_after_it():
    assert made(("light", WRONG), ("fan", RIGHT)) == {"s0": ("fan", "light"), "s1": ("fan", None)}
    assert made(("light", WRONG), ("lock", WRONG), ("fan", RIGHT)) == {
        "s0": ("fan", "light"),
        "s1": ("fan", "lock"),
        "s2": ("fan", None),
    }


def test_a_failed_turn_without_a_correction_has_feedback_only():
    assert made(("light", WRONG), ("light", RIGHT)) == {"s0": (None, "light"), "s1": ("light", None)}
    late = [("light", WRONG), ("fan", None), ("fan", RIGHT)]
    assert made(*late, within=1)["s0"] == (None, "light")
    assert made(*late, within=2)["s0"] == ("fan", "light")


def test_turns_of_unknown_outcome_and_our_rewrites_are_left_out():
    assert made(("light", None), ("fan", RIGHT, True), ("lock", RIGHT)) == {"s2": ("lock", None)}
    assert set(made(("fan", RIGHT, True), ("lock", RIGHT), rewritten=True)) == {"s0", "s1"}


def test_turns_become_requests_whatever_their_order(tmp_path):
    rows = [*turns(("light", WRONG), ("fan", RIGHT)), *turns(("fan", None), session="t")]
    found = []
    for name, given in {"a": rows, "b": rows[::-1]}.items():
        run = Run(str(tmp_path / name), InProcessRunner())
        made = turn_requests(run, "requests", run.table("turns", pa.Table.from_pylist(given, schema=TURNS)))
        [table] = [table for table in made.tables() if len(table)]
        found.append(table.select(["id", "group", "skill", "negative", "fold"]).to_pylist())
        assert made.seal["rejected"] == 1
    assert found[0] == found[1]
    assert {row["fold"] for row in found[0]} == {found[0][0]["fold"]}
    assert [row["skill"] for row in found[0]] == ["fan", "fan"]


def feedback(**settings):
    scores = [[{"skill": answer, "score": 0.9}] for answer in ("a", "b", "c", "c")]
    right = [["a"], ["a", "b"], ["a"], ["a"]]
    kind = pa.list_(pa.struct([("skill", pa.string()), ("score", pa.float32())]))
    table = pa.table(
        {
            "id": list("wxyz"),
            "skill": ["a"] * 4,
            "negative": pa.array([None] * 4, pa.string()),
            "right": right,
            "fold": pa.array([0, 0, 0, 1], pa.int32()),
            "first_scores": pa.array(scores, kind),
        }
    )
    rng = RecordRandom(0, "simulate_feedback")
    found = SimulateFeedback(FeedbackSettings(**settings), rng)(table)
    return list(zip(found["skill"].to_pylist(), found["negative"].to_pylist(), strict=True))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"told": 1.0}, [("a", None), ("a", None), ("a", "c"), ("a", "c")]),
        ({"told": 0.0}, [("a", None)] * 4),
        ({"told": 1.0, "corrected": 0.0, "traffic": (1,)}, [("a", None), ("a", None), ("a", "c"), (None, "c")]),
        ({"told": 1.0, "corrected": 1.0, "traffic": (0, 1)}, [(None, None), (None, None), ("a", "c"), ("a", "c")]),
    ],
)
def test_feedback_is_given_to_answers_that_are_not_right(settings, expected):
    assert feedback(**settings) == expected
