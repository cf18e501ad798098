"""From sessions to annotated requests: what is rephrased and understood gives labels, poison and doubt give none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gristmill.actors.nlu.domain_trainer import COLUMNS
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.models.sessions.projection import ProjectionSettings
from gristmill.pipelines.run import Run
from gristmill.pipelines.sessions.meanings import MeaningFiles, meaning_groups
from gristmill.pipelines.sessions.projection import (
    ProjectionParts,
    SessionProjectionSettings,
    examples,
    friction_parts,
    funnel,
    projection_parts,
    score_emitted,
)
from gristmill.pipelines.sessions.projection_scores import group_pairs, score_pairs, typed_pairs
from gristmill.shards.audit import audit_below
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.random import RecordRandom
from gristmill.shards.schema import TRUTH_FIELDS, TURN_FIELDS

pytest.importorskip("text_to_num", reason="text2num is not installed")

ROOMS = ("kitchen", "hall", "office", "garage", "attic", "cellar", "porch", "studio", "nursery", "pantry")
OTHER_ROOMS = ("bedroom", "bathroom", "corridor", "stairs", "balcony", "library")
STATES = ("on", "off")
UNDERSTOOD = ("turn {state} the lights in the {room}", "{room} lights {state}", "switch the {room} lights {state}")
FAILING = ("let {room} be lit {state} now", "i want {room} lights turned {state} instead")


def slot(tokens: list[str], room: str) -> list[dict[str, Any]]:
    place = tokens.index(room)
    return [{"name": "area", "value": room, "start": place, "end": place + 1}]


def said(text: str, room: str, state: str, fails: bool) -> dict[str, Any]:
    tokens = text.format(room=room, state=state).split()
    true = {"domain": "light", "intent": f"turn_{state}", "slots": slot(tokens, room)}
    read = {"domain": "media", "intent": "play", "slots": []} if fails else true
    return {
        "text": " ".join(tokens),
        "asr_text": " ".join(tokens),
        "tokens": tokens,
        "lang": "en",
        **read,
        "score": 0.6,
        "meaning": f"{state} {room}",
        **{f"true_{name}": value for name, value in true.items()},
        "failed": fails,
    }


def sessions(count: int, poison: float = 0.0) -> list[dict[str, Any]]:
    """Return the turns of sessions: some are understood at once, others say it in other words."""
    made = []
    draw = RecordRandom(0, "test sessions")
    for number in range(count):
        rng = draw(f"s{number}")

        def pick(given: tuple[str, ...], rng: Any = rng) -> str:
            return given[int(rng.integers(len(given)))]

        room, state = pick(ROOMS), pick(STATES)
        wanted = [(said(pick(FAILING), room, state, True), "first")] if rng.random() < 0.5 else []
        if wanted and rng.random() < poison:
            room, state = pick(tuple(one for one in ROOMS if one != room)), pick(STATES)
            wanted.append((said(pick(UNDERSTOOD), room, state, False), "poison"))
        else:
            wanted.append((said(pick(UNDERSTOOD), room, state, False), "rephrase" if wanted else "first"))
        at = 1000.0 * number
        for turn, (one, role) in enumerate(wanted):
            known = rng.random() < 0.4
            made.append(
                {
                    "id": f"s{number}/{turn}",
                    "session": f"s{number}",
                    "turn": turn,
                    "time": at + 10 * turn,
                    "user": f"u{number % 20}",
                    "role": role,
                    "succeeded": not one["failed"] if known else None,
                    **one,
                }
            )
    return made


def meanings(run: Run) -> SealedSet:
    rows = []
    for room in OTHER_ROOMS:
        for state in STATES:
            for number, text in enumerate((*UNDERSTOOD, *FAILING)):
                tokens = text.format(room=room, state=state).split()
                own = {"id": f"{room}{state}{number}", "meaning": f"{state} {room}", "tokens": tokens}
                rows.append({**own, "intent": f"turn_{state}", "slots": slot(tokens, room)})
    fields = {field.name: field.type for field in TURN_FIELDS}
    schema = pa.schema(
        [*(("id", pa.string()), ("meaning", pa.string())), *((n, fields[n]) for n in ("tokens", "intent", "slots"))]
    )
    return run.table("meanings", pa.Table.from_pylist(rows, schema=schema))


def projected(out: Path, turns: list[dict[str, Any]], truth: bool = True, **settings: Any) -> ProjectionParts:
    run = Run(str(out), InProcessRunner())
    schema = pa.schema([*TURN_FIELDS, *(TRUTH_FIELDS if truth else ())])
    given = run.table("turns", pa.Table.from_pylist(turns, schema=schema))
    wanted = SessionProjectionSettings(**settings)
    made = projection_parts(run, wanted, friction_parts(run, wanted, given, [meanings(run)]))
    run.finish()
    assert not [gap for result in audit_below(run.out) for gap in result.gaps]
    return made


def rows(made: SealedSet) -> list[dict[str, Any]]:
    return [row for table in made.tables() for row in table.to_pylist()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> ProjectionParts:
    return projected(tmp_path_factory.mktemp("whole"), sessions(200))


def test_failing_utterances_get_the_label_of_their_rephrase(whole: ProjectionParts) -> None:
    emitted = rows(whole.emitted)
    assert len(emitted) > 20
    for row in emitted:
        assert row["right"] == 1.0
        assert (row["domain"], row["label_source"], row["text"]) == ("light", "projected", " ".join(row["tokens"]))
        (area,) = row["slots"]
        assert row["tokens"][area["start"] : area["end"]] == [area["value"]]
        assert row["text"].split()[0] in ("let", "i")
        assert 0.5 < row["confidence"] <= 1
    assert max(row["support"] for row in emitted) > 1
    # What domain models are trained on.
    assert {*COLUMNS} <= {*whole.emitted.schema.names}
    assert {row["fold"] for row in emitted} == {0}


def test_the_funnel_counts_what_each_part_leaves(whole: ProjectionParts) -> None:
    found = funnel(whole)
    failing = sum(row["failed"] for row in rows(whole.turns))
    assert found.turns == len(sessions(200))
    assert found.pairs == failing  # each is followed by its rephrase
    assert found.pairs >= found.paraphrases >= found.rephrases >= found.projected > 0
    assert found.projected == whole.projected.records
    assert found.emitted == len(rows(whole.emitted))
    lost = [count for name, count in found.refused.items() if name.startswith("utterance")]
    assert found.utterances - found.emitted == sum(lost)


def test_precision_and_emission_rate_are_of_utterances(whole: ProjectionParts) -> None:
    scores = score_emitted(whole)
    failing = {row["asr_text"] for row in rows(whole.turns) if row["failed"]}
    assert scores.precision == 1.0
    assert scores.emission_rate == pytest.approx(len(rows(whole.emitted)) / len(failing))
    assert scores.rephrased == len(failing)
    shown = examples(whole, 2)
    assert [len(shown[kind]) for kind in (True, False)] == [2, 0]


def test_poisoned_sessions_give_no_labels(tmp_path: Path) -> None:
    scores = score_emitted(projected(tmp_path, sessions(200, poison=0.3)))
    assert scores.precision >= 0.97
    assert scores.emission_rate > 0.4


def test_fewer_users_than_wanted_and_users_that_disagree_are_reasons(tmp_path: Path) -> None:
    turns = sessions(100)
    made = projected(tmp_path / "few", turns, agreement={"support": 4})
    assert {row["support"] >= 4 for row in rows(made.emitted)} <= {True}
    assert funnel(made).refused["utterance: too few users"] > 0


def test_the_result_does_not_depend_on_the_order_of_the_rows(tmp_path: Path) -> None:
    turns = sessions(80)
    one, other = (projected(tmp_path / name, given) for name, given in (("a", turns), ("b", turns[::-1])))
    assert one.emitted.records > 0
    assert one.emitted.digest == other.emitted.digest


def test_sessions_of_a_user_without_times_outcomes_and_truth_run_through(tmp_path: Path) -> None:
    lost = ("time", "user", "succeeded", "score", *(field.name for field in TRUTH_FIELDS))
    turns = [{name: value for name, value in turn.items() if name not in lost} for turn in sessions(12)]
    made = projected(tmp_path, turns, truth=False)
    assert funnel(made).turns == len(turns)
    assert funnel(made).projected > 0
    with pytest.raises(UserError, match="no truth of its turns"):
        score_emitted(made)
    assert not examples(made)[False]


def test_groups_and_pairs_of_texts_are_read_from_files(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"scenario": "alarm", "intent": "set", "slots": [["time", "ten am"]], "wordings": '
        '[["1", "wake me at ten am", "wake me at [time : ten am]"], ["2", "ten am alarm", "[time : ten am] alarm"]]}\n'
        '{"wordings": ["one text"]}\n'
    )
    (tmp_path / "b.tsv").write_text("original\tdisfluent\nWho won?\tWho lost no who won?\nx\n")
    run = Run(str(tmp_path / "out"), InProcessRunner())
    made = meaning_groups(run, MeaningFiles(places=[str(tmp_path / "a.jsonl"), str(tmp_path / "b.tsv")]))
    found = rows(made)
    assert [row["tokens"][-1] for row in found] == ["am", "alarm", "won?", "won?"]
    assert len({row["meaning"] for row in found}) == 2
    assert [(one["name"], one["start"], one["end"]) for one in found[1]["slots"]] == [("time", 0, 2)]
    assert made.seal["rejected"] == 2


def test_spans_of_typed_requests_are_exact_where_strings_do_not_match(data_dir: Path) -> None:
    folder = data_dir / "overview" / "rephrase"
    pairs = list(typed_pairs(f"{folder}/hwu64_typed_vs_normalised.jsonl.gz"))[::4]
    scores = score_pairs(pairs, ProjectionSettings(), changed=True)
    assert 1 - scores["span_exact"].slots.value >= 0.85
    assert scores["string_match"].slots.value - scores["span_exact"].slots.value >= 0.1
    others = list(group_pairs(f"{folder}/hwu64_same_meaning_groups.jsonl.gz"))[::20]
    assert 1 - score_pairs(others, ProjectionSettings())["span_exact"].requests.value >= 0.97
