"""Training of a paraphrase detector: domains left out, equal bytes, what it learns, errors."""

from __future__ import annotations

import json
import zlib

import numpy as np
import pyarrow as pa
import pytest

from gristmill.actors.requests.paraphrase_trainer import (
    ParaphraseTraining,
    embedded_of,
    nearest,
    read_detector,
    read_records,
    train,
)
from gristmill.cluster.inprocess import InProcessContext, InProcessRunner
from gristmill.models.requests.paraphrase import NEGATIVES, POSITIVES
from gristmill.shards.artifact import get_artifact
from gristmill.shards.dataset import seal_tables
from gristmill.shards.errors import SettingsError, UserError
from gristmill.shards.job import TrainJob
from tests.actors.requests.test_paraphrases import filled, records

DIM = 16


def vector(tokens):
    """Return the mean of random vectors of the words: what is alike has like vectors."""
    words = [np.random.default_rng(zlib.crc32(token.lower().encode())).normal(size=DIM) for token in tokens]
    mean = np.mean(words, axis=0)
    return (mean / np.linalg.norm(mean)).astype(np.float16)


def with_embedding(made, path, order=1, shards=1):
    whole = pa.concat_tables(made.tables())
    whole = whole.take(pa.array(np.arange(whole.num_rows)[::order]))
    flat = np.concatenate([vector(tokens) for tokens in whole["tokens"].to_pylist()])
    column = pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float16()), DIM)
    whole = whole.append_column("embedding", column)
    size = -(-whole.num_rows // shards)
    return seal_tables(str(path), "embedded", [whole.slice(i, size) for i in range(0, whole.num_rows, size)])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return filled(tmp_path_factory.mktemp("paraphrases"), records())[0]


@pytest.fixture(scope="module")
def data(made, tmp_path_factory):
    return with_embedding(made, tmp_path_factory.mktemp("embedded") / "set")


@pytest.fixture
def context(tmp_path):
    return InProcessContext(str(tmp_path / "run"))


def settings(**more):
    return ParaphraseTraining(**{"detector": {"epochs": 20, "batch": 32, "steps": 1}, **more})


def test_the_same_bytes_again_whatever_the_order_of_the_set(made, data, tmp_path):
    again = with_embedding(made, tmp_path / "again", order=-1, shards=3)
    files = []
    for number, given in enumerate((data, data, again)):
        job = TrainJob("detector", train, settings(left_out=("light",)), {"data": given})
        url = str(tmp_path / str(number))
        InProcessRunner().train([(job, url)])
        files.append({name: get_artifact(url).read(name) for name in get_artifact(url).files})
    for name in ("paraphrase.json", "weights.safetensors"):
        assert files[0][name] == files[1][name] == files[2][name]
    told = json.loads(files[0]["training.json"])
    assert told["left_out"] == ["light"]
    assert set(told["pairs"]) == {*POSITIVES, *NEGATIVES}
    assert told["auc"]["article"].keys() == {"value", "low", "high", "n"}
    assert told["auc"]["other_value"]["value"] > 0.9
    detector = read_detector(str(tmp_path / "0"))
    assert not {"attic", "garage"} & set(detector.values.counts)


def test_it_tells_pairs_of_a_domain_that_it_has_not_seen(data, context, tmp_path):
    job = TrainJob("detector", train, settings(left_out=("light",)), {"data": data})
    InProcessRunner().train([(job, str(tmp_path / "made"))])
    detector = read_detector(str(tmp_path / "made"))
    tokens = [
        ["turn", "on", "the", "light", "in", "the", "attic"],
        ["light", "up", "the", "attic"],
        ["turn", "on", "the", "light", "in", "the", "garage"],
    ]
    table = pa.table({"tokens": tokens, "embedding": [vector(one) for one in tokens]})
    table = table.set_column(1, "embedding", table["embedding"].cast(pa.list_(pa.float16(), DIM)))
    rows = embedded_of(table)
    found = detector.similarity(rows, rows)
    assert found.diagonal().min() > 0.9
    assert found[0, 1] > found[0, 2]


def test_the_pairs_of_domains_left_out_are_not_trained_on(data, context):
    def numbers(**more):
        given = settings(detector={"epochs": 1, "steps": 1}, **more)
        return train(given, context, data=data.url)

    every = read_records(settings(), data.url)
    own = np.array([request.domain != "light" for request in every.requests])
    pairs = every.pairs(own)
    assert "light" not in set(pairs.domains)
    assert "light" not in {every.requests[row].domain for row in pairs.places.ravel()}
    made = numbers(left_out=("light",))
    assert sum(made["pairs"].values()) == len(pairs.kinds)
    assert numbers()["auc"] == {}
    few = read_records(settings(requests=20), data.url)
    assert 5 < sum(kind is None for kind in few.kinds) < 40


def test_the_nearest_has_another_intent_and_other_words(data):
    found = read_records(settings(), data.url)
    own = np.flatnonzero([kind is None for kind in found.kinds])
    pairs = nearest(found.embedded, found.requests, own)
    assert len(pairs) == len(own)
    vectors = found.embedded.vectors.astype(np.float32)
    for one, other in pairs:
        intents = [(found.requests[row].domain, found.requests[row].intent) for row in own]
        mine = found.requests[one].domain, found.requests[one].intent
        rivals = [row for row, intent in zip(own, intents, strict=True) if intent != mine]
        assert other in rivals
        assert vectors[one] @ vectors[other] == pytest.approx(max(vectors[rivals] @ vectors[one]), abs=1e-5)
    assert len(nearest(found.embedded, found.requests, own[:1])) == 0


def test_what_cannot_be_trained_on_is_refused(made, data, context, tmp_path):
    with pytest.raises(UserError, match=r"left_out \['lamp'\] are no domains of .*alarm, chat, light, music"):
        train(settings(left_out=("lamp",)), context, data=data.url)
    with pytest.raises(UserError, match="without embedding; expected id, tokens"):
        train(settings(), context, data=made.url)
    with pytest.raises(UserError, match=r"0 positive and .* negative pairs are left"):
        train(settings(left_out=("alarm", "music", "light")), context, data=data.url)
    with pytest.raises(SettingsError, match=r"weights.other"):
        settings(detector={"weights": {"other": 1}})
    with pytest.raises(UserError, match="paraphrase: requests without embedding"):
        embedded_of(pa.table({"tokens": [["a"]]}))
