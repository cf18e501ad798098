"""The requests that a detector is trained on: each request is given back, and after it those made of it."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from gristmill.actors.requests.paraphrases import Paraphrases, collect
from gristmill.cluster.inprocess import InProcessContext, InProcessRunner
from gristmill.models.requests.templates import FILLED_KINDS, TEMPLATES
from gristmill.shards.artifact import get_artifact
from gristmill.shards.audit import audit_below
from gristmill.shards.dataset import seal_tables
from gristmill.shards.engine import run_step
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainJob
from gristmill.shards.schema import REQUESTS
from gristmill.shards.step import Step
from tests.models.nlu.domain_examples import requests


def sealed(path, rows, shards=3):
    size = -(-len(rows) // shards)
    tables = [pa.Table.from_pylist(rows[i : i + size], schema=REQUESTS) for i in range(0, len(rows), size)]
    return seal_tables(str(path), "requests", tables)


def records():
    return [{**row, "lang": "en", "label_source": "gold"} for row in requests()]


def filled(folder, rows, shards=3):
    """Seal the requests with those made of them."""
    data = sealed(folder / "set", rows, shards)
    job = TrainJob("templates", collect, inputs={"data": data}, stepwise=False)
    InProcessRunner().train([(job, str(folder / "templates"))])
    templates = get_artifact(str(folder / "templates"))
    step = Step("paraphrases", (Paraphrases.stage(templates=templates.ref),), data)
    return run_step(step, str(folder / "made"), InProcessRunner(), 0), templates


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return filled(tmp_path_factory.mktemp("paraphrases"), records())[0]


def test_each_request_is_followed_by_those_made_of_it(made):
    rows = pa.concat_tables(made.tables()).to_pylist()
    given = {row["id"]: row for row in records()}
    own = [row for row in rows if row["pair_kind"] is None]
    assert [row["id"] for row in own] == sorted(given)
    for row in own:
        assert row["parent_id"] == row["id"]
        assert {name: row[name] for name in REQUESTS.names} == given[row["id"]]
    others = [row for row in rows if row["pair_kind"]]
    assert {row["pair_kind"] for row in others} == set(FILLED_KINDS)
    for row in others:
        parent = given[row["parent_id"]]
        assert row["id"] == f"{parent['id']}~{row['pair_kind']}"
        assert (row["domain"], row["lang"], row["label_source"]) == (parent["domain"], "en", "synthetic")
        assert row["text"] == " ".join(row["tokens"])
        for slot in row["slots"]:
            assert slot["value"] == " ".join(row["tokens"][slot["start"] : slot["end"]])


def test_shards_and_order_do_not_matter_and_nothing_is_lost(made, tmp_path):
    again, _ = filled(tmp_path, records()[::-1], shards=2)
    rows = [sorted(pa.concat_tables(one.tables()).to_pylist(), key=lambda row: row["id"]) for one in (made, again)]
    assert rows[0] == rows[1]
    assert all(not result.gaps for result in audit_below(str(tmp_path)))


def test_the_templates_are_an_artifact(tmp_path):
    _, artifact = filled(tmp_path, records())
    found = json.loads(artifact.read(TEMPLATES))
    assert {one["domain"] for one in found["templates"]} == {"alarm", "music", "light"}
    assert json.loads(artifact.read("training.json")) == {"requests": len(records())}


def test_requests_that_lack_something_are_refused(tmp_path):
    context = InProcessContext(str(tmp_path / "run"))
    table = pa.Table.from_pylist(records(), schema=REQUESTS)
    bare = seal_tables(str(tmp_path / "bare"), "bare", [table.drop_columns(["slots"])])
    with pytest.raises(UserError, match=r"bare: requests without slots; expected id, tokens, domain"):
        collect(Paraphrases.settings_type()(), context, data=bare.url)
    rows = records()
    rows[0]["intent"] = None
    with pytest.raises(UserError, match=r"request r000 is of domain 'alarm' and intent None"):
        filled(tmp_path / "none", rows)
