"""Scoring and training of re-rankers on tables of hypotheses."""

import json

import numpy as np
import pyarrow as pa
import pytest

from gristmill.actors.nlu.rerank import (
    Rerank,
    RerankSettings,
    artifacts_of,
    folder_ref,
    labelled_lists,
    lists_of,
)
from gristmill.actors.nlu.weight_trainer import WeightTraining, train
from gristmill.cluster.inprocess import InProcessContext, InProcessRunner
from gristmill.models.nlu.rerankers import UNWEIGHTED, DomainReranker, HypothesisError, Numeric, Reranker
from gristmill.pipelines.command.sampling import Trial
from gristmill.shards.artifact import put_artifact
from gristmill.shards.dataset import open_sealed, seal_tables
from gristmill.shards.errors import SettingsError, UserError
from gristmill.shards.job import TrainJob
from gristmill.shards.schema import HYPOTHESES_FIELDS, HYPOTHESIS

DOMAINS = ("alarm", "music", "video")
WEIGHTS = [
    DomainReranker("alarm", "R3", (1.0, 0.3, 0.2), -0.5),
    DomainReranker("music", "R3", (0.7, 0.9, 0.1), 0.25),
    DomainReranker("video", "R3", (1.5, 0.4, 0.3, 0.5), 0.1, (Numeric("hour", 12.0, 6.0),)),
]


def records(n, seed=0, domains=DOMAINS):
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        truth = rng.choice(domains)
        hour = float(rng.integers(0, 24))
        hypotheses = []
        for domain in rng.permutation(domains)[: rng.integers(0, len(domains) + 1)]:
            logs = np.log(rng.random(3))
            right = bool(domain == truth and rng.random() < np.exp(logs.mean()))
            made = {"domain": domain, "intent": "i", "slots": [], "errors": 0 if right else 1, "correct": right}
            names = ("domain_logprob", "intent_logprob", "slots_logprob")
            hypotheses.append(made | dict(zip(names, logs.tolist(), strict=True)))
        device = None if i % 7 == 0 else ("tv" if truth == "video" else "speaker")
        errors = min([h["errors"] for h in hypotheses], default=1)
        rows.append(
            {
                "id": f"r{i}",
                "domain": truth,
                "fold": -1 if i % 5 == 4 else i % 5,
                "hour": hour,
                "device": device,
                "hypotheses": hypotheses,
                "reference_length": 1,
                "oracle_errors": errors,
            }
        )
    return rows


def as_table(rows):
    schema = pa.schema(
        [
            pa.field("id", pa.string()),
            pa.field("domain", pa.string()),
            pa.field("fold", pa.int32()),
            pa.field("hour", pa.float64()),
            pa.field("device", pa.string()),
            *HYPOTHESES_FIELDS,
        ]
    )
    return pa.Table.from_pylist(rows, schema)


def stage(refs=None, folder=None, suffix=""):
    artifacts = artifacts_of(refs or {}) | ({"folder": folder_ref(folder)} if folder else {})
    return Rerank.stage(RerankSettings(suffix=suffix), **artifacts)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "weights"
    root.mkdir()
    for made in WEIGHTS:
        (root / f"{made.domain}.json").write_bytes(made.to_bytes())
    return root


@pytest.fixture
def data(tmp_path):
    """A sealed set of three shards."""
    table = as_table(records(300))
    return seal_tables(str(tmp_path / "data"), "hypotheses", [table.slice(i, 100) for i in range(0, 300, 100)])


def test_batch_is_its_records_one_by_one(folder):
    rows = records(300, seed=1)
    built = stage(folder=str(folder), suffix="_r3")
    out = built.build(0)(as_table(rows))
    assert out.schema.field("scores_r3").type == built.adds[0].type == pa.list_(pa.float32())
    assert out.schema.field("best_r3").type == built.adds[1].type
    reranker = Reranker(WEIGHTS)
    for row, scores, best in zip(rows, out["scores_r3"].to_pylist(), out["best_r3"].to_pylist(), strict=True):
        ranked = reranker.rank(row["hypotheses"], {"hour": row["hour"]})
        assert [one.confidence for one in sorted(ranked)] == scores
        assert best == (ranked[0].place if ranked else -1)


def test_a_slice_of_a_table_and_missing_lists(folder):
    table = as_table(records(60, seed=2))
    actor = Rerank(RerankSettings(), folder=str(folder))
    whole, part = actor(table), actor(pa.concat_tables([table.slice(20, 15), table.slice(50, 5)]))
    assert part.to_pylist() == whole.to_pylist()[20:35] + whole.to_pylist()[50:55]
    none = table.slice(0, 2).set_column(5, HYPOTHESES_FIELDS[0], pa.array([None, []], pa.list_(HYPOTHESIS)))
    assert actor(none)["scores"].to_pylist() == [[], []]
    assert actor(none)["best"].to_pylist() == [-1, -1]


def test_without_weights_scores_are_the_products():
    rows = records(20, seed=3)
    out = stage().build(0)(as_table(rows))
    for row, scores in zip(rows, out["scores"].to_pylist(), strict=True):
        logs = [h["domain_logprob"] + h["intent_logprob"] + h["slots_logprob"] for h in row["hypotheses"]]
        assert scores == pytest.approx(np.exp(logs), rel=1e-5)


def test_artifacts_and_a_folder_are_one(folder, tmp_path):
    refs = {
        made.domain: put_artifact(str(tmp_path / made.domain), {"reranker.json": made.to_bytes()}, {}).ref
        for made in WEIGHTS
    }
    table = as_table(records(50))
    assert stage(refs).build(0)(table).equals(stage(folder=str(folder)).build(0)(table))


def test_the_folders_content_is_what_the_stage_is(folder):
    before = stage(folder=str(folder)).identity()
    assert stage(folder=str(folder)).identity() == before
    (folder / "music.json").write_bytes(DomainReranker("music", "R3", (0.0, 0.0, 0.0)).to_bytes())
    assert stage(folder=str(folder)).identity() != before


def test_an_unknown_domain_breaks_its_record_only():
    actor = Rerank(RerankSettings())
    actor.reranker = Reranker(WEIGHTS[:2])
    with pytest.raises(HypothesisError, match="of domain 'video', which has no re-ranker; there are: alarm, music"):
        actor(as_table(records(20)))
    assert not issubclass(HypothesisError, UserError)  # which would end the run


def test_a_list_to_learn_from_that_cannot_be_scored_is_one_sentence():
    rows = records(20)
    rows[3]["hypotheses"][0]["domain_logprob"] = None
    with pytest.raises(UserError, match=r"lists: a hypothesis of domain .* has a score that is no number"):
        labelled_lists(as_table(rows), (), "lists")


def test_weights_that_are_refused(folder, tmp_path):
    (folder / "music.json").write_bytes(WEIGHTS[2].to_bytes())
    with pytest.raises(UserError, match=r"music\.json: has the weights of 'video'; expected those of 'music'"):
        stage(folder=str(folder))
    body = json.loads(WEIGHTS[1].to_bytes())
    for change, message in (({"format": 9}, "format 9"), ({"features": ["log_asr"]}, "log_asr; this version computes")):
        (folder / "music.json").write_text(json.dumps(body | change))
        with pytest.raises(UserError, match=rf"music\.json: .*{message}"):
            stage(folder=str(folder))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no re-ranker"):
        stage(folder=str(tmp_path / "empty"))
    with pytest.raises(UserError, match=r"has no reranker\.json"):
        Rerank(RerankSettings(), **{"domain:music": str(tmp_path / "empty")})


def test_tables_that_are_refused(folder):
    table = as_table(records(5))
    actor = Rerank(RerankSettings(), folder=str(folder))
    with pytest.raises(UserError, match="no column 'hypotheses'"):
        actor(table.drop_columns(["hypotheses"]))
    with pytest.raises(UserError, match="no column 'hour'"):
        actor(table.drop_columns(["hour"]))
    with pytest.raises(UserError, match=r"'slots' is of type list<.*expected text, booleans or numbers"):
        lists_of(table.append_column("slots", pa.array([["a"]] * 5)), ["slots"])
    bare = pa.table({"hypotheses": [[{"domain": "music"}]]})
    with pytest.raises(UserError, match="no field 'domain_logprob'; they have domain"):
        lists_of(bare)


def test_context_columns_are_read_alike_from_arrow_and_python():
    rows = records(30)
    table = as_table(rows)
    columns = {
        "device": table["device"],
        "coded": table["device"].dictionary_encode(),
        "late": pa.chunked_array([[r["hour"] > 12 for r in rows[:10]], [r["hour"] > 12 for r in rows[10:]]]),
        "whole": table["hour"].cast(pa.int64()),
    }
    table = pa.table({"hypotheses": table["hypotheses"], **columns})
    lists = lists_of(table, list(columns))
    for name, held in lists.context.items():
        values = table[name].to_pylist()
        if held.names is None:
            assert held.values.tolist() == values
        else:
            texts = [None if code < 0 else held.names[code] for code in held.values]
            assert texts == [str(v).lower() if isinstance(v, bool) else v for v in values]


def settings(domain="video", **more):
    return WeightTraining(**{"domain": domain, "loss": "R3", "negatives": 0.5, "seed": 1, **more})


def job(data, domain="video", **more):
    given = settings(domain, **more)
    return TrainJob(f"reranker-{domain}", loop=train, settings=given, inputs={"data": data}, stepwise=False)


def trained(out, *jobs):
    runner = InProcessRunner()
    runner.train([(one, one.url(str(out))) for one in jobs])
    return [one.done(one.url(str(out))).read("reranker.json") for one in jobs]


def test_training_repeats_to_the_byte_and_each_domain_by_itself(data, tmp_path):
    jobs = [job(data, domain, context=["device", "hour"]) for domain in DOMAINS]
    together = trained(tmp_path / "a", *jobs)
    assert together[::-1] == trained(tmp_path / "b", *jobs[::-1])
    again = trained(tmp_path / "a", jobs[0], job(data, "music", context=["device", "hour"], seed=2), jobs[2])
    assert (again[0], again[2]) == (together[0], together[2])
    assert again[1] != together[1]
    made = DomainReranker.from_bytes(together[2], "video")
    assert made.features[3:] == ("device=speaker", "device=tv", "hour")
    assert made.trained_on["data"] == data.digest
    assert made.weights[4] > made.weights[3]


def test_the_test_set_is_left_out_and_all_positives_are_in(data, tmp_path):
    context = InProcessContext(str(tmp_path / "x"))
    got = train(settings(negatives=1.0), context, data=data.url)
    table = pa.concat_tables(open_sealed(data.url).tables(["domain", "fold"])).to_pylist()
    learn = [row for row in table if row["fold"] >= 0]
    assert got["utterances"] == len(learn)
    assert got["positives"] == sum(row["domain"] == "video" for row in learn)
    few = train(settings(negatives=0.25), context, data=data.url)
    assert few["positives"] == got["positives"]
    assert 0 < few["utterances"] - few["positives"] < 0.4 * (got["utterances"] - got["positives"])


def test_a_sample_of_negatives_stands_for_all(tmp_path):
    data = seal_tables(str(tmp_path / "data"), "hypotheses", [as_table(records(4000, seed=5))])
    context = InProcessContext(str(tmp_path / "x"))
    bias = []
    for share in (1.0, 0.3):
        file = train(settings(negatives=share, loss="R2"), context, data=data.url)["files"]["reranker.json"]
        bias.append(DomainReranker.from_bytes(file, "video").bias)
    assert bias[1] == pytest.approx(bias[0], abs=0.3)  # unweighted it would be off by log 0.3 / 1, over 0.8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"domain": "shop"}, "'shop': none of the 240 training requests in hypotheses is of this domain"),
        ({"context": ["mood"]}, "hypotheses has no column 'mood'"),
    ],
)
def test_data_that_do_not_fit_are_refused(data, tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        train(settings(**change), InProcessContext(str(tmp_path / "x")), data=data.url)


def test_a_domain_that_is_never_read_ends_a_training_and_not_a_trial(tmp_path):
    rows = records(40)
    for row in rows:
        row["hypotheses"] = [one for one in row["hypotheses"] if one["domain"] != "video"]
    data = seal_tables(str(tmp_path / "data"), "hypotheses", [as_table(rows)])
    for whole in (InProcessContext(str(tmp_path / "x")), Trial(None)):
        with pytest.raises(UserError, match=r"'video': no hypothesis of this domain .* expected at least one"):
            train(settings(), whole, data=data.url)
    tried = train(settings(), Trial(), data=data.url)["files"]["reranker.json"]
    assert DomainReranker.from_bytes(tried, "video").loss == UNWEIGHTED
    music = [train(settings("music"), given, data=data.url) for given in (InProcessContext(str(tmp_path)), Trial())]
    assert music[0] == music[1]


@pytest.mark.parametrize("wrong", [{"negatives": 0}, {"negatives": 3}, {"loss": "R0"}, {"l2": -1}, {"semer": 1}])
def test_settings_that_are_refused(wrong):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        settings(**wrong)
