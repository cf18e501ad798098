"""Labels of a pool and readings of a test by a function's recogniser, with embeddings and a threshold."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from gristmill.actors.nlu.domain_trainer import DomainTraining, train
from gristmill.actors.requests.function_reader import (
    ACCEPTED,
    NOT_ACCEPTED,
    WITHOUT,
    Detect,
    DetectSettings,
    FunctionReader,
    Label,
)
from gristmill.actors.requests.propagation import PropagationSettings, accept
from gristmill.cluster.inprocess import InProcessContext, InProcessRunner
from gristmill.models.nlu.linear import LinearSettings
from gristmill.shards.artifact import put_artifact
from gristmill.shards.dataset import seal_tables
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainJob
from tests.actors.nlu.test_domain_trainer import FIELDS, records

DIM = 6
SCHEMA = pa.schema([*FIELDS, pa.field("embedding", pa.list_(pa.float16(), DIM))])


def embedded(rows):
    """Vectors that tell the domain, with some noise that depends on the request alone."""
    places = {"alarm": 0, "music": 1, "light": 2, "chat": 3}
    for row in rows:
        noise = np.random.default_rng(int(row["id"][1:])).normal(0, 0.2, DIM)
        vector = np.eye(DIM)[places[row["domain"]]] + noise
        yield {**row, "embedding": (vector / np.linalg.norm(vector)).astype(np.float16)}


def put(path, rows):
    return seal_tables(str(path), "requests", [pa.Table.from_pylist(list(rows), schema=SCHEMA)])


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reader")
    rows = [row for row in embedded(records(folds=2)) if row["fold"] >= 0]
    own = [row for row in rows if row["domain"] == "alarm"]
    return {
        "seeds": put(folder / "seeds", own[:6]),
        "others": put(folder / "others", [row for row in rows if row["domain"] != "alarm" and row["fold"] == 0]),
        "pool": put(folder / "pool", own[6:] + [r for r in rows if r["domain"] != "alarm" and r["fold"] == 1]),
    }


def model(folder, sets, added=(), **more):
    settings = LinearSettings(negatives=None, balanced=True, embedding=1.0, min_count=1)
    training = DomainTraining(domain="alarm", model=settings, threshold_folds=3, **more)
    inputs = {"data": [sets["seeds"], sets["others"]]} | ({"added": list(added)} if added else {})
    job = TrainJob("model", train, training, inputs, stepwise=False)
    url = job.url(str(folder))
    InProcessRunner().train([(job, url)])
    return url


@pytest.fixture(scope="module")
def url(tmp_path_factory, sets):
    return model(tmp_path_factory.mktemp("model"), sets)


def seal_labelled(path, rows):
    return seal_tables(str(path), "requests", [pa.Table.from_pylist(rows, schema=pa.schema([*SCHEMA, WITHOUT]))])


def table(made, *without):
    return pa.concat_tables(made.tables()).drop_columns(list(without))


def test_accepted_requests_get_labels_and_others_a_reason(sets, url):
    pool = table(sets["pool"], "domain", "intent", "slots", "label_source", "fold")
    gold = {row["id"]: row for row in table(sets["pool"]).to_pylist()}
    made = Label(LinearSettings(), model=url)(pool).to_pylist()
    accepted = [row for row in made if row["reject_reason"] is None]
    assert {gold[row["id"]]["domain"] for row in accepted} == {"alarm"}
    assert len(accepted) >= 0.8 * sum(row["domain"] == "alarm" for row in gold.values())
    for row in accepted:
        assert (row["domain"], row["label_source"]) == ("alarm", "pseudo")
        assert 0 < row["confidence"] <= 1
    assert {row["reject_reason"] for row in made} == {None, NOT_ACCEPTED}


def test_labels_do_not_depend_on_the_batch(sets, url):
    pool = table(sets["pool"])
    label = Label(LinearSettings(), model=url)
    whole = label(pool)
    parts = pa.concat_tables([label(pool.slice(start, 5)) for start in range(0, pool.num_rows, 5)])
    assert whole.equals(parts)


def test_detection_reads_slots_only_where_they_count(sets, url):
    made = Detect(DetectSettings(systems=("self",)), read_self=url)(table(sets["pool"])).to_pylist()
    for row in made:
        read = row["read_self"]
        counts = row["domain"] == "alarm" or read["logprob"] >= read["threshold"]
        assert (read["slots"] is not None) == counts


def test_another_acceptance_takes_the_place_of_the_threshold(sets, url, tmp_path):
    pool = table(sets["pool"])
    chosen = pool["id"].to_pylist()[-2:]
    accepted = {ACCEPTED: json.dumps({name: [0] for name in chosen}).encode()}
    put_artifact(str(tmp_path / "accepted"), accepted, {"artifact": "accepted"})
    made = Label(LinearSettings(), model=url, accepted=str(tmp_path / "accepted"))(pool).to_pylist()
    assert [row["id"] for row in made if row["reject_reason"] is None] == chosen
    assert [row["accepted_without"] for row in made if row["reject_reason"] is None] == [[0], [0]]


def test_folds_are_models_that_have_not_seen_their_requests(sets, url, tmp_path):
    """Without the seeds of a fold the model is that of a training without them, as one that has its threshold."""
    reader, pool = FunctionReader(url), table(sets["pool"])
    seeds, others = (table(sets[name]).sort_by("id") for name in ("seeds", "others"))
    without = reader.log_odds_without(pool)
    assert without.shape == (len(pool), 3)
    for fold in range(3):
        seen = {
            name: put(tmp_path / f"{name}_{fold}", [row for n, row in enumerate(one.to_pylist()) if n % 3 != fold])
            for name, one in (("seeds", seeds), ("others", others))
        }
        apart = FunctionReader(model(tmp_path / str(fold), seen)).log_odds(pool)
        assert np.corrcoef(apart, without[:, fold])[0, 1] > 0.99
        assert np.abs(apart - without[:, fold]).max() < np.abs(reader.log_odds(pool) - without[:, fold]).max()


def test_a_fold_is_not_taught_by_labels_that_its_own_requests_gave(sets, url, tmp_path):
    """A row that no fold's model accepts is trained on, but in no fold: held-out scores are as without it."""
    label = Label(LinearSettings(), model=url)(table(sets["pool"]))
    kept = label.filter(pa.compute.is_null(label["reject_reason"])).drop_columns(["reject_reason"]).to_pylist()
    assert any(row["accepted_without"] for row in kept)
    nowhere = seal_labelled(tmp_path / "nowhere", [{**row, "accepted_without": []} for row in kept])
    taught = FunctionReader(model(tmp_path / "taught", sets, [nowhere]))
    pool, base = table(sets["pool"]), FunctionReader(url)
    assert np.abs(taught.log_odds(pool) - base.log_odds(pool)).max() > 0.1
    assert np.corrcoef(taught.log_odds_without(pool)[:, 0], base.log_odds_without(pool)[:, 0])[0, 1] > 0.99
    everywhere = seal_labelled(tmp_path / "everywhere", [{**row, "accepted_without": [0, 1, 2]} for row in kept])
    assert FunctionReader(model(tmp_path / "all", sets, [everywhere])).model.threshold > taught.model.threshold


def test_propagation_accepts_with_the_recogniser(sets, url, tmp_path):
    given = {name: sets[name].url for name in ("seeds", "others")}
    context = InProcessContext(str(tmp_path / "run"))
    made = accept(PropagationSettings(neighbours=4), context, requests=sets["pool"].url, model=url, **given)
    ids = json.loads(made["files"][ACCEPTED])
    gold = {row["id"]: row["domain"] for row in table(sets["pool"]).to_pylist()}
    assert {gold[name] for name in ids} == {"alarm"}
    assert made["accepted"] == len(ids) >= 0.8 * list(gold.values()).count("alarm")
    again = accept(PropagationSettings(neighbours=4), context, requests=sets["pool"].url, model=url, **given)
    assert again["files"] == made["files"]


def test_added_requests_change_the_model_by_their_weight(sets, url, tmp_path):
    label = Label(LinearSettings(), model=url)(table(sets["pool"]))
    kept = label.filter(pa.compute.is_null(label["reject_reason"])).drop_columns(["reject_reason", "confidence"])
    added = put(tmp_path / "added", kept.to_pylist())
    from gristmill.shards.artifact import get_artifact

    digests = {get_artifact(model(tmp_path / str(w), sets, [added], added_weight=w)).digest for w in (1.0, 0.1)}
    assert len(digests) == 2
    assert get_artifact(url).digest not in digests


def test_what_a_model_cannot_read_is_a_sentence(sets, url, tmp_path):
    with pytest.raises(UserError, match="read embeddings of 6 numbers; given none"):
        Label(LinearSettings(), model=url)(table(sets["pool"], "embedding"))
    with pytest.raises(UserError, match="no linear domain model"):
        Label(LinearSettings(), model=str(tmp_path / "nothing"))
    bare = seal_tables(str(tmp_path / "bare"), "requests", [table(sets["others"], "embedding")])
    with pytest.raises(UserError, match="requests have none; expected a column embedding"):
        model(tmp_path, sets | {"others": bare})
