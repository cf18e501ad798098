"""Several right skills from requests to results: generated requests, a table of turns, scores and their intervals."""

from __future__ import annotations

import gzip

import numpy as np
import pyarrow as pa
import pytest

from gristmill.actors.nlu.folds import FoldSettings, fold_of
from gristmill.actors.sessions.dialogue_skills import NO_SKILL, NOT_READ, SgdSkillSettings, skill_request
from gristmill.actors.sessions.skill_trainer import SKILL_REQUEST_FIELDS, SkillTraining
from gristmill.actors.sessions.skills import FeedbackSettings
from gristmill.actors.sources.reading import NO_OBJECT
from gristmill.actors.training.settings import Schedule
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.models.sessions.skills import PseudoSettings, SkillNetworkSettings
from gristmill.pipelines.run import Run
from gristmill.pipelines.sessions import skill_requests
from gristmill.pipelines.sessions import skill_scores as scores
from gristmill.pipelines.sessions.skill_inputs import (
    GeneratedSkillSettings,
    check_table,
    generated_requests,
    sgd_requests,
)
from gristmill.pipelines.sessions.skills import SYSTEMS, SkillSettings, give_feedback, learn_skills
from gristmill.shards.errors import UserError
from gristmill.shards.random import RecordRandom

SETTINGS = SkillSettings(
    training=SkillTraining(
        schedule=Schedule(epochs=16, lr=0.03),
        batch=16,
        network=SkillNetworkSettings(buckets=256, dim=8, dropout=0.0),
    ),
    pseudo=PseudoSettings(epochs=2, threshold=0.25, after=4),
    feedback=FeedbackSettings(told=1.0, traffic=(2,)),
)
ROOMS = ("hall", "attic", "kitchen", "office", "cellar")
SAID = (*[("lamp", ["light", "switch"])] * 4, ("fan", ["fan"]), ("it", ["fan"]), ("door", ["lock"]), ("it", ["lock"]))


def requests():
    """A lamp is a light and a switch; of "it", no network can know what it is."""
    shown, folds, rows = RecordRandom(0, "shown"), FoldSettings(folds=3, test_share=0.3), []
    for number in range(240):
        name, right = SAID[number % len(SAID)]
        text = f"turn on the {ROOMS[number // 8 % 5]} {name}"
        key, group = f"r{number:03d}", f"g{number // 2}"
        fold = fold_of(group, folds, RecordRandom(0, "folds"))
        rows.append({"id": key, **skill_request(key, group, text.split(), right, shown, fold)})
    return pa.Table.from_pylist(rows, schema=pa.schema(SKILL_REQUEST_FIELDS))


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    run = Run(str(tmp_path_factory.mktemp("run")), InProcessRunner())
    told = give_feedback(run, SETTINGS, run.table("requests", requests()))
    made = {0: learn_skills(run, SETTINGS, told, 0, "_0")}
    run.finish()
    return made


def test_every_system_is_scored_with_intervals(learnt):
    rows = {(row.system, row.metric): row for row in scores.score_skills(learnt, SETTINGS)}
    assert {system for system, _ in rows} == set(SYSTEMS)
    for metric in ("macro_f1", "macro_f1_known", "macro_f1_half", "wrong", "wrong_negative", "ece"):
        for system in SYSTEMS:
            row = rows[system, metric]
            assert row.low <= row.value <= row.high
            assert 0 <= row.value <= 1
    assert rows["pseudo", "precision"].value > 0.3  # those of "it" are wrong
    assert rows["pseudo", "recall"].value > 0.1
    assert rows["pseudo", "macro_f1_half"].value > rows["single", "macro_f1_half"].value
    half = rows["pseudo", "macro_f1_half_relative"]
    assert half.value == pytest.approx(
        rows["pseudo", "macro_f1_half"].value / rows["single", "macro_f1_half"].value - 1
    )


def test_only_traffic_lacks_labels_and_only_told_rows_keep_them(learnt):
    for row in (row for table in learnt[0].scored.tables() for row in table.to_pylist()):
        if row["fold"] != 2:
            assert row["skill"] is not None
        assert row["negative"] is None or row["negative"] not in row["right"]
        assert row["skill"] is None or row["skill"] in row["right"]
        if row["fold"] == 2 and row["negative"] is None:
            assert row["skill"] is None


def test_generated_requests_depend_on_their_number_only(tmp_path):
    folds = FoldSettings()
    run = Run(str(tmp_path / "run"), InProcessRunner())
    sealed = generated_requests(run, "requests", GeneratedSkillSettings(records=300))
    [whole] = skill_requests.requests(300, folds, rows=300)
    parts = list(skill_requests.requests(300, folds, rows=100))
    assert [row for part in parts for row in part.to_pylist()] == whole.to_pylist()
    assert sealed.read(0).to_pylist() == whole.to_pylist()
    right = whole["right"].to_pylist()
    assert 0.05 < sum(len(one) > 1 for one in right) / 300 < 0.5
    assert all(skill in one for skill, one in zip(whole["skill"].to_pylist(), right, strict=True))
    shown = {tuple(one): set() for one in right}
    for skill, one in zip(whole["skill"].to_pylist(), right, strict=True):
        shown[tuple(one)].add(skill)
    assert any(len(found) > 1 for found in shown.values())


HEADER = "dialogue\tturn\ttext\tservice\tintent\tdomain\tservices_same_intent\tservices_that_take_these_slots\tstate\n"


def write(path, rows):
    lines = "".join(
        f"{dialogue}\t{turn}\t{text}\tR_1\tFind\tR\tR_1 R_2\t{right}\t{state}\n"
        for dialogue, turn, text, right, state in rows
    )
    path.write_bytes(gzip.compress((HEADER + lines).encode()))
    return str(path)


def test_a_table_of_turns_is_read(tmp_path):
    rows = [(f"d{n // 2}", n % 2, 'I want "it" now.', "R_1 R_2", '{"city": ["Rome"]}') for n in range(60)]
    url = write(tmp_path / "turns.tsv.gz", rows)
    run = Run(str(tmp_path / "run"), InProcessRunner())
    found = [row for table in sgd_requests(run, "requests", url).tables() for row in table.to_pylist()]
    assert len(found) == 60
    assert found[0]["context"] == ["city"]
    assert found[0]["right"] == ["R_1", "R_2"]
    assert {row["skill"] for row in found} == {"R_1", "R_2"}
    folds = {}
    for row in found:
        folds.setdefault(row["group"], set()).add(row["fold"])
    assert all(len(one) == 1 for one in folds.values())
    assert len({fold for one in folds.values() for fold in one}) > 3
    text = sgd_requests(run, "text", url, SgdSkillSettings(context=False, share=0.5))
    assert 0 < text.records < 60
    assert text.read(0)["context"].null_count == len(text.read(0))
    assert text.seal["reasons"] == {f"parse_dialogue_turn: {NOT_READ}": 60 - text.records}


def test_turns_of_a_table_that_are_no_requests_are_rejected(tmp_path):
    good = ("d0", 0, "hello", "R_1", "{}")
    url = write(tmp_path / "turns.tsv.gz", [good, ("d1", 0, "hello", "", "{}"), ("d2", 0, "hello", "R_1", "{torn")])
    made = sgd_requests(Run(str(tmp_path / "run"), InProcessRunner()), "requests", url)
    assert [row["group"] for table in made.tables() for row in table.to_pylist()] == ["d0"]
    assert made.seal["reasons"] == {f"parse_dialogue_turn: {reason}": 1 for reason in (NO_OBJECT, NO_SKILL)}


def test_a_table_without_its_columns_is_refused(tmp_path):
    (tmp_path / "turns.tsv").write_text("dialogue\tturn\ttext\nd\t0\thello\n")
    with pytest.raises(UserError, match="has no 'state' among dialogue, turn, text; expected it"):
        check_table(str(tmp_path / "turns.tsv"), SgdSkillSettings())


def predicted(values, right):
    values, right = np.array(values, float), np.array(right, bool)
    return scores.Predicted(values, right, right, np.ones(len(values), bool), np.arange(len(values)))


def test_counts_of_the_test():
    given = predicted([[0.9, 0.2], [0.6, 0.7]], [[1, 0], [1, 0]])
    whole = scores.macro_f1_counts(given, 0.5).sum(0)[None]
    assert scores.macro_f1(whole)[0] == pytest.approx((1.0 + 0.0) / 2)
    assert scores.ratio(scores.wrong_counts(given).sum(0)[None])[0] == 0.5
    assert scores.expected_error(scores.ece_counts(given).sum(0)[None])[0] == pytest.approx((0.1 + 0.7) / 2)
    assert scores.chosen_threshold(predicted([[0.9, 0.2], [0.5, 0.3]], [[1, 0], [1, 0]])) == 0.35
    labels = [
        {"group": "a", "skill": "x", "right": ["x", "y"], "labels": [{"skill": "y", "source": "pseudo"}]},
        {"group": "a", "skill": "x", "right": ["x"], "labels": [{"skill": "z", "source": "pseudo"}]},
        {"group": "b", "skill": "x", "right": ["x", "y"], "labels": [{"skill": "z", "source": "negative"}]},
    ]
    assert scores.pseudo_counts(labels).tolist() == [[1, 2, 1], [0, 0, 1]]


def test_replicates_are_paired_and_of_groups():
    sums = np.stack([np.arange(20.0), np.full(20, 20.0)], 1)
    one, again = (scores.resampled({0: sums, 1: sums}, scores.ratio) for _ in range(2))
    assert one.tobytes() == again.tobytes()
    assert one[0] == pytest.approx(9.5 / 20)
    assert 0.03 < one[1:].std() < 0.12
