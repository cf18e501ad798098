"""Training of domains on sealed requests: folds left out, negatives drawn by id, equal bytes, errors."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from gristmill.actors.nlu.domain_trainer import DomainTraining, _counts, _rows, train
from gristmill.cluster.inprocess import InProcessContext, InProcessRunner
from gristmill.models.nlu.domain import predict
from gristmill.models.nlu.families import family_of, load
from gristmill.models.nlu.linear import LinearSettings
from gristmill.models.nlu.neural import NeuralSettings
from gristmill.shards.artifact import get_artifact
from gristmill.shards.dataset import open_sealed, seal_tables
from gristmill.shards.errors import SettingsError, UserError
from gristmill.shards.job import TrainJob
from gristmill.shards.schema import REQUESTS
from tests.models.nlu.domain_examples import TEMPLATES, requests

SETTINGS = {
    "linear": {"min_count": 1},
    "neural": {"buckets": 256, "dim": 8, "hidden": 8, "epochs": 2, "batch": 16},
}
FIELDS = pa.schema([*REQUESTS, pa.field("fold", pa.int32())])


def records(folds=3):
    """Every fourth request is for test; the others take the folds in turn."""
    return [
        {**row, "lang": "en", "label_source": "gold", "fold": -1 if n % 4 == 3 else n % folds}
        for n, row in enumerate(requests())
    ]


def sealed(path, rows, shards=3):
    size = -(-len(rows) // shards)
    tables = [pa.Table.from_pylist(rows[i : i + size], schema=FIELDS) for i in range(0, len(rows), size)]
    return seal_tables(str(path), "requests", tables)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return sealed(tmp_path_factory.mktemp("requests") / "set", records())


@pytest.fixture
def context(tmp_path):
    return InProcessContext(str(tmp_path / "run"))


def settings(domain="alarm", family="linear", **more):
    return DomainTraining(domain=domain, model=family_of(family).settings(**SETTINGS[family]), **more)


def trained(data, context, **more):
    return train(settings(**more), context, data=data.url)


def job(data, **more):
    return TrainJob("domain", loop=train, settings=settings(**more), inputs={"data": data}, stepwise=False)


def test_a_training_sees_neither_its_fold_nor_the_test(data):
    for left_out in (None, 0, 2):
        run = settings(left_out=left_out)
        seen = [row for row in records() if row["fold"] not in (-1, left_out)]
        own = sorted((row for row in seen if row["domain"] == "alarm"), key=lambda row: row["id"])
        assert _counts(run, [data.url]) == (len(own), len(seen) - len(own))
        rows = _rows(run, [data.url], (), 1.0)
        examples = [row.example for row in rows.own]
        assert [example.tokens for example in examples] == [row["tokens"] for row in own]
        assert [row.example.tokens for row in rows.others] == [
            row["tokens"] for row in seen if row["domain"] != "alarm"
        ]
        assert all(tag in ("O", "B-time", "I-time") for example in examples for tag in example.tags)
        assert any("B-time" in example.tags for example in examples)


def test_negatives_are_drawn_by_seed_domain_and_id(data, tmp_path):
    def drawn(domain="alarm", seed=0, share=0.5, url=data.url):
        rows = _rows(settings(domain, seed=seed), [url], (), share)
        return {" ".join(row.example.tokens) for row in rows.others}

    every = drawn(share=1.0)
    assert drawn() == drawn()
    assert 0.2 < len(drawn()) / len(every) < 0.8
    assert drawn(share=0.2) < drawn() < drawn(share=0.8) < every
    assert drawn() != drawn(seed=1)
    common = every & drawn("chat", share=1.0)
    assert drawn() & common != drawn("chat") & common
    # Independent of the order and the shards of the set.
    again = sealed(tmp_path / "again", records()[::-1], shards=2)
    assert drawn(url=again.url) == drawn()


def test_fewer_negatives_believe_more(data, context):
    tokens = [row["tokens"] for row in requests()]
    sums = []
    for negatives in (0.3, 1.0, None):
        model = LinearSettings(min_count=1, negatives=negatives)
        made = train(DomainTraining(domain="alarm", model=model), context, data=data.url)
        sums.append(sum(found[0].domain_logprob for found in predict(load(made["files"]), tokens)))
        assert made["others"] <= sum(row["domain"] != "alarm" for row in records())
    assert sums == sorted(sums, reverse=True)


@pytest.mark.parametrize("family", sorted(SETTINGS))
def test_the_same_bytes_again_whatever_the_order_of_the_set(data, tmp_path, family):
    again = sealed(tmp_path / "again", records()[::-1], shards=2)
    files = []
    for number, given in enumerate((data, data, again)):
        url = str(tmp_path / str(number))
        InProcessRunner().train([(job(given, family=family, left_out=1), url)])
        artifact = get_artifact(url)
        files.append({name: artifact.read(name) for name in artifact.files})
    assert files[0] == files[1] == files[2]
    training = json.loads(files[0]["training.json"])
    own = sum(row["domain"] == "alarm" and row["fold"] in (0, 2) for row in records())
    assert (training["domain"], training["left_out"], training["own"]) == ("alarm", 1, own)
    model = load(files[0])
    assert (model.domain, model.family, model.intents) == ("alarm", family, ("remove", "set"))
    assert (model.slots is not None) if family == "linear" else model.tags == ("O", "B-time", "I-time")


def test_a_domain_without_requests_left_is_refused(data, context, tmp_path):
    with pytest.raises(UserError, match=r"domain 'weather'.*none of its requests outside the test.*at least one"):
        trained(data, context, domain="weather")
    rows = records()
    for row in rows:
        if row["domain"] == "alarm":
            row["fold"] = 1
    one = sealed(tmp_path / "one", rows)
    with pytest.raises(UserError, match=r"domain 'alarm'.*and fold 1"):
        trained(one, context, left_out=1)
    trained(one, context, left_out=0)
    alone = sealed(tmp_path / "alone", [row for row in records() if row["domain"] == "alarm"])
    with pytest.raises(UserError, match=r"domain 'alarm'.*no requests of other domains"):
        trained(alone, context)


def test_wrong_settings_are_refused():
    for wrong, word in (
        (lambda: settings(famly="linear"), "famly"),
        (lambda: settings(left_out=-1), "left_out"),
        (lambda: settings(domain=""), "domain"),
        (lambda: LinearSettings(domain_C=1), "domain_C"),
        (lambda: LinearSettings(domain_c=0), "domain_c"),
        (lambda: LinearSettings(crf={"l1": -1}), "crf.l1"),
        (lambda: LinearSettings(negatives=0), "negatives"),
        (lambda: NeuralSettings(dropout=1), "dropout"),
    ):
        with pytest.raises(SettingsError, match=word):
            wrong()


def test_families_at_their_defaults_are_different_trainings(data):
    first, second = (DomainTraining(domain="alarm", model=kind()) for kind in (LinearSettings, NeuralSettings))
    assert first.identity() == {"domain": "alarm", "model": {"family": "linear"}}
    assert second.identity() == {"domain": "alarm", "model": {"family": "neural"}}


def test_requests_that_say_too_little_are_refused(tmp_path, context):
    bare = seal_tables(str(tmp_path / "bare"), "requests", [pa.Table.from_pylist(records()).drop_columns("fold")])
    with pytest.raises(UserError, match="without fold"):
        trained(bare, context)
    for name, word in (("fold", "without fold or domain"), ("intent", "no intent")):
        rows = records()
        rows[0][name] = None
        with pytest.raises(UserError, match=word):
            trained(sealed(tmp_path / name, rows), context)


def test_all_domains_are_trained_apart(data, context):
    """Requests of other domains are only negatives: their intents and slots reach no model."""
    for domain, intents in TEMPLATES.items():
        described = json.loads(trained(data, context, domain=domain)["files"]["model.json"])
        assert described["intents"] == sorted(intents)
    assert open_sealed(data.url).digest == data.digest
