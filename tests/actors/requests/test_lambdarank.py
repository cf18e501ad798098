"""The peer of the re-rankers as a stage: only a record that cannot be scored is lost."""

from __future__ import annotations

import pyarrow as pa
import pytest

from gristmill.actors.requests.lambdarank import Lambdarank, LambdarankSettings, LambdarankTraining, train
from gristmill.cluster.inprocess import InProcessContext, InProcessRunner
from gristmill.shards.dataset import seal_tables
from gristmill.shards.engine import run_step
from gristmill.shards.errors import SettingsError, UserError
from gristmill.shards.job import TrainJob
from gristmill.shards.step import Step
from tests.actors.nlu.test_rerank import as_table, records

pytest.importorskip("lightgbm", reason="LightGBM is not installed")

SETTINGS = LambdarankSettings(context=("hour",), suffixes={"none": "_raw", "platt": "_platt"})


def broken() -> list[dict]:
    """Lists of which one has no score, one no domain."""
    rows = [row for row in records(40, seed=3) if row["hypotheses"]]
    rows[5]["hypotheses"][0]["slots_logprob"] = None
    rows[9]["hypotheses"][-1]["domain"] = None
    return rows


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    root = tmp_path_factory.mktemp("lambdarank")
    data = seal_tables(str(root / "data"), "hypotheses", [as_table(records(300))])
    job = TrainJob("lambdarank", loop=train, settings=LambdarankTraining(context=("hour",)), inputs={"data": data})
    InProcessRunner().train([(job, job.url(str(root)))])
    return job.done(job.url(str(root))).ref


def test_a_list_that_cannot_be_scored_costs_itself(model, tmp_path) -> None:
    rows = broken()
    data = seal_tables(str(tmp_path / "data"), "hypotheses", [as_table(rows)])
    stage = Lambdarank.stage(SETTINGS, model=model)
    made = run_step(Step("ranked", (stage,), data, max_quarantine=0.5), str(tmp_path / "out"), InProcessRunner(), 0)
    assert made.seal["quarantined"] == 2
    scored = pa.concat_tables(made.tables()).to_pylist()
    assert [row["id"] for row in scored] == [row["id"] for place, row in enumerate(rows) if place not in (5, 9)]
    for row in scored:
        assert len(row["scores_platt"]) == len(row["scores_raw"]) == len(row["hypotheses"])
        assert row["best_raw"] >= 0


def test_such_a_list_among_those_to_learn_from_is_one_sentence(tmp_path) -> None:
    data = seal_tables(str(tmp_path / "data"), "hypotheses", [as_table(broken())])
    job = TrainJob("lambdarank", loop=train, settings=LambdarankTraining(), inputs={"data": data}, stepwise=False)
    with pytest.raises(UserError, match="hypotheses: a hypothesis"):
        InProcessRunner().train([(job, str(tmp_path / "model"))])


def test_wrong_settings_are_refused() -> None:
    for wrong in ({"suffixes": {"softmax": ""}}, {"suffixes": {}, "columns": ()}, {}):
        with pytest.raises(SettingsError):
            LambdarankSettings(**wrong)
    with pytest.raises(SettingsError, match="colums"):
        LambdarankTraining(colums=("hour",))


def test_lists_of_one_fold_are_one_sentence(tmp_path) -> None:
    rows = [row for row in records(40) if row["fold"] == 2]
    data = seal_tables(str(tmp_path / "data"), "hypotheses", [as_table(rows)])
    with pytest.raises(UserError, match=r"hypotheses has 0 hypotheses outside the last fold and \d+ in it; expected"):
        train(LambdarankTraining(), InProcessContext(str(tmp_path / "model")), data=data.url)
