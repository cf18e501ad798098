"""Readings of all domains: cross-fitted, scored against the reference, and the same in every batch and runner."""

from __future__ import annotations

import pyarrow as pa
import pytest

from gristmill.actors.nlu.hypotheses import Hypotheses, ListSettings, readers
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.models.measures.semer import Interpretation, errors
from gristmill.shards.dataset import seal_tables
from gristmill.shards.engine import run_step
from gristmill.shards.errors import UserError
from gristmill.shards.schema import HYPOTHESES_FIELDS
from gristmill.shards.step import Step
from tests.actors.nlu.test_domain_trainer import FIELDS, job, records, sealed
from tests.models.nlu.domain_examples import TEMPLATES

FOLDS = (-1, 0, 1)
# Contradicts all other labels and has a word of its own: only a model trained on it can know its label.
ODD = "xyzzy"


def stage(models, n=10, intents=3):
    return Hypotheses.stage(ListSettings(n=n, intents=intents), **readers(models))


def planted():
    """Requests in two folds and the test, and a word that is an alarm, five times over in fold 0."""
    odd = {"tokens": [ODD], "text": ODD, "domain": "alarm", "intent": "set", "slots": [], "lang": "en"}
    return records(folds=2) + [{**odd, "id": f"odd{n}", "label_source": "gold", "fold": 0} for n in range(5)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("hypotheses")


@pytest.fixture(scope="module")
def data(root):
    return sealed(root / "requests", planted(), shards=2)


@pytest.fixture(scope="module")
def models(root, data):
    made = {}
    for fold in FOLDS:
        for domain in TEMPLATES:
            left_out = None if fold < 0 else fold
            training = job(data, domain=domain, left_out=left_out)
            url = training.url(str(root))
            InProcessRunner().train([(training, url)])
            made.setdefault(fold, {})[domain] = training.done(url)
    return made


@pytest.fixture(scope="module")
def read(root, data, models):
    made = run_step(Step("hypotheses", (stage(models, 6, 2),), data), str(root / "out"), InProcessRunner(), 0)
    return [row for table in made.tables() for row in table.to_pylist()]


def test_lists_are_judged_against_the_reference(read):
    assert len(read) == len(planted())
    for row in read:
        assert row["hypotheses"]
        assert len(row["hypotheses"]) <= 6
        reference = Interpretation(row["domain"], row["intent"], tuple((s["name"], s["value"]) for s in row["slots"]))
        assert row["reference_length"] == len(row["slots"]) + 1
        sums = []
        for one in row["hypotheses"]:
            slots = tuple((slot["name"], slot["value"]) for slot in one["slots"])
            assert one["errors"] == errors(reference, Interpretation(one["domain"], one["intent"], slots))
            assert one["correct"] == (one["errors"] == 0)
            for slot in one["slots"]:
                assert slot["value"] == " ".join(row["tokens"][slot["start"] : slot["end"]])
            logs = [one[f"{name}_logprob"] for name in ("domain", "intent", "slots")]
            assert max(logs) <= 0
            sums.append(sum(logs))
        assert sums == sorted(sums, reverse=True)
        assert row["oracle_errors"] == min(one["errors"] for one in row["hypotheses"])
    tested = [row for row in read if row["fold"] == -1]
    assert sum(row["oracle_errors"] == 0 for row in tested) > 0.8 * len(tested)


def alarm(row):
    return max((one["domain_logprob"] for one in row["hypotheses"] if one["domain"] == "alarm"), default=-99.0)


def test_no_request_is_read_by_a_model_that_saw_it(root, read, models):
    odd = [row for row in read if row["tokens"] == [ODD]]
    assert len(odd) == 5
    assert all(alarm(row) < -0.5 for row in odd)
    # The same word in the test part is read by models trained on it in fold 0: the difference is tested.
    tested = [{**row, "fold": -1} for row in planted() if row["tokens"] == [ODD]]
    seen = stage(models, 6, 2).build(0)(pa.Table.from_pylist(tested, schema=FIELDS)).to_pylist()
    assert all(alarm(row) > -0.3 for row in seen)


@pytest.mark.parametrize("folds", [{-1: -1, 0: 1, 1: 0}, {-1: 0, 0: 0, 1: 1}, {-1: -1, 0: 0, 1: -1}])
def test_models_of_another_fold_are_refused(models, folds):
    with pytest.raises(UserError, match="left_out"):
        stage({fold: models[of] for fold, of in folds.items()}).build(0)


def test_rows_do_not_depend_on_their_batch(read, models):
    actor = stage(models, 6, 2).build(0)
    rows = {row["id"]: row for row in read}
    for row in planted()[::7]:
        assert actor(pa.Table.from_pylist([row], schema=FIELDS)).to_pylist() == [rows[row["id"]]]


def test_unlabelled_empty_and_no_requests(models):
    actor = stage(models, 3, 1).build(0)
    row = {"id": "a", "text": "", "fold": -1}
    bare = actor(pa.Table.from_pylist([{**row, "tokens": []}, {**row, "id": "b", "tokens": ["play"]}], schema=FIELDS))
    for found in bare.to_pylist():
        assert len(found["hypotheses"]) == 3
        assert {one["errors"] for one in found["hypotheses"]} == {None}
        assert {one["correct"] for one in found["hypotheses"]} == {None}
        assert found["oracle_errors"] is found["reference_length"] is None
    none = actor(FIELDS.empty_table())
    assert none.num_rows == 0
    assert [none.schema.field(field.name).type for field in HYPOTHESES_FIELDS] == [f.type for f in HYPOTHESES_FIELDS]


def test_wrong_models_and_folds_are_refused(root, models):
    with pytest.raises(UserError, match="same domains"):
        stage({-1: models[-1], 0: {"alarm": models[0]["alarm"]}})
    with pytest.raises(UserError, match="same domains"):
        stage({})
    with pytest.raises(UserError, match="is of domain 'chat'"):
        stage({-1: {"alarm": models[-1]["chat"]}}).build(0)
    actor = stage({-1: models[-1]}).build(0)
    with pytest.raises(UserError, match=r"fold \[1\].*\[-1\]"):
        actor(pa.Table.from_pylist([planted()[1]], schema=FIELDS))
    with pytest.raises(UserError, match="without fold"):
        actor(pa.Table.from_pylist(planted()[:1], schema=FIELDS).drop_columns("fold"))
    empty = seal_tables(str(root / "plain"), "requests", [FIELDS.empty_table()])
    lost = dict.fromkeys(("alarm",), type(models[-1]["alarm"])(empty.url, "0", {}, {}))
    with pytest.raises(UserError, match="no model of domain 'alarm'"):
        stage({-1: lost}).build(0)
