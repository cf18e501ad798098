"""The relevance filter's two passes: what it is fitted on, and the distances that it adds."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from gristmill.actors.requests.relevance import Relevance, RelevanceFitSettings, tokens_of, train
from gristmill.cluster.inprocess import InProcessContext, InProcessRunner
from gristmill.models.requests.relevance import MODEL, WEIGHTS, RelevanceModel, fit
from gristmill.shards.artifact import get_artifact, put_artifact
from gristmill.shards.dataset import seal_tables
from gristmill.shards.engine import run_step
from gristmill.shards.errors import UserError
from gristmill.shards.index import Cut
from gristmill.shards.job import TrainJob
from gristmill.shards.step import Step

OWN = ["wake me at six", "set an alarm", "wake me up"]
OTHERS = ["play me a song", "what is up", "play it at six", "call me", "stop the music", "is it cold"]


@pytest.fixture
def context(tmp_path):
    return InProcessContext(str(tmp_path / "run"))


@pytest.fixture
def sealed(tmp_path):
    def made(name, texts, **more):
        columns = {"id": [f"{name}/{place:03d}" for place in range(len(texts))], "text": texts, **more}
        return seal_tables(str(tmp_path / name), name, [pa.table(columns)])

    return made


def split(texts):
    return [text.split() for text in texts]


def test_it_is_fitted_on_the_seeds_of_all_sets(sealed, context):
    first, second, others = sealed("one", OWN[:2]), sealed("two", OWN[2:]), sealed("others", OTHERS)
    made = train(RelevanceFitSettings(), context, seeds=[first.url, second.url], others=others.url)
    assert (made["own"], made["others"]) == (3, 6)
    assert made["files"] == fit(split(OWN), split(OTHERS)).files()


def test_others_are_drawn_by_their_ids(sealed, context):
    many = [f"play song number {number}" for number in range(400)]
    own, others = sealed("own", OWN), sealed("many", many)

    def number(**settings):
        return train(RelevanceFitSettings(**settings), context, seeds=[own.url], others=others.url)

    drawn = number(others=100)
    assert 60 < drawn["others"] < 140
    assert drawn["files"] == number(others=100)["files"]
    assert drawn["files"] != number(others=100, seed=1)["files"]
    assert number(others=400)["others"] == 400
    rows = others.read(0)
    turned = seal_tables(others.url + "-turned", "many", [rows.slice(200), rows.slice(0, 200)])
    again = train(RelevanceFitSettings(others=100), context, seeds=[own.url], others=turned.url)
    assert again["others"] == drawn["others"]


def test_tokens_are_read_before_text_and_text_is_split(sealed, context):
    tokens = [["wake", "me"], None, []]
    table = pa.table({"tokens": pa.array(tokens, pa.list_(pa.string())), "text": ["Other words", "x", "y"]})
    assert tokens_of(table) == [["wake", "me"], [], []]
    texts = pa.table({"text": ["Wake  me\u00a0up ", None, "打开 light", "cafe\u0301 7°"]})
    assert tokens_of(texts) == [["Wake", "me", "up"], [], ["打", "开", "light"], ["café", "7°"]]


def test_a_distance_is_the_negative_score_and_the_same_in_any_shards(sealed, tmp_path):
    seeds, others = sealed("own", OWN), sealed("others", OTHERS)
    url = str(tmp_path / "relevance")
    InProcessRunner().train(
        [(TrainJob("relevance", train, RelevanceFitSettings(), {"seeds": [seeds], "others": others}), url)]
    )
    model = get_artifact(url)
    texts = [*OWN, *OTHERS, "words never met", "wake up", ""] * 20
    with_text = sealed("pool", texts)
    with_tokens = sealed("pool_tokens", texts, tokens=split(texts))
    known = RelevanceModel.from_files(json.loads(model.read(MODEL)), model.read(WEIGHTS))
    expected = (-known.score(split(texts))).tolist()
    for data in (with_text, with_tokens):
        for rows in (500, 17):
            step = Step(f"scored_{data.name}_{rows}", (Relevance.stage(relevance=model.ref),), data, cut=Cut(rows=rows))
            made = run_step(step, str(tmp_path / "out"), InProcessRunner(), 0)
            found = pa.concat_tables(made.tables()).sort_by("id")
            assert found["distance"].to_pylist() == expected
            assert found["text"].to_pylist() == texts


def test_a_second_score_is_that_of_embeddings(sealed, context, tmp_path):
    """Requests without a known word are told apart by their embedding, in any batches."""

    def embedded(name, texts, place):
        vectors = [[1.0, 0.0, 0.1] if place(n) else [0.0, 1.0, 0.1] for n in range(len(texts))]
        return sealed(name, texts, embedding=pa.array(vectors, pa.list_(pa.float16(), 3)))

    seeds, others = embedded("own", OWN, lambda n: True), embedded("others", OTHERS, lambda n: False)
    settings = RelevanceFitSettings(embedding=0.5)
    made = train(settings, context, seeds=[seeds.url], others=others.url)
    put_artifact(str(tmp_path / "second"), made["files"], {"artifact": "relevance"})
    relevance = Relevance(RelevanceFitSettings(), relevance=str(tmp_path / "second"))
    pool = pa.concat_tables(embedded("pool", ["never met"] * 6, lambda n: n % 2 == 0).tables())
    found = relevance(pool)["distance"].to_pylist()
    assert all(found[n] < 0 < found[n + 1] for n in (0, 2, 4))
    assert found == [relevance(pool.slice(n, 1))["distance"][0].as_py() for n in range(6)]
    plain = train(RelevanceFitSettings(), context, seeds=[seeds.url], others=others.url)
    assert plain["files"] == fit(split(OWN), split(OTHERS)).files()
    with pytest.raises(UserError, match="reads embeddings of 3 numbers; given none"):
        relevance(pool.drop_columns("embedding"))
    with pytest.raises(UserError, match="bare: requests without embedding"):
        train(settings, context, seeds=[sealed("bare", OWN).url], others=others.url)


def test_a_set_without_requests_or_words_is_refused(sealed, context, tmp_path):
    without = seal_tables(str(tmp_path / "ids"), "ids", [pa.table({"id": ["a"], "name": ["b"]})])
    own = sealed("own", OWN)
    with pytest.raises(UserError, match="ids: records with id, name; expected a column tokens or text"):
        train(RelevanceFitSettings(), context, seeds=[own.url], others=without.url)
    with pytest.raises(UserError, match="relevance: records with name; expected a column tokens or text"):
        tokens_of(pa.table({"name": ["b"]}))
    none = own.read(0).slice(0, 0)
    with pytest.raises(UserError, match="3 requests of the function and 0 others; expected both"):
        train(
            RelevanceFitSettings(),
            context,
            seeds=[own.url],
            others=seal_tables(str(tmp_path / "none"), "none", [none]).url,
        )
