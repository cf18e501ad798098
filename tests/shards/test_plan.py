"""The plan of a run: what is declared is made when it is needed, and what is told comes in the order of declaration."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.inputs import refuse_empty
from gristmill.pipelines.run import Run
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainJob
from gristmill.shards.plan import expect, later, make, nodes_in, resolved
from gristmill.shards.step import Step
from tests.pipelines.tiny import texts, twice, upper


def counted(settings, context, *, data, more=0):
    return {"files": {"n.txt": str(len(data) + more).encode()}}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(str(tmp_path / "out"), InProcessRunner())


def made(run: Run) -> list[str]:
    return [trace.name for trace in run.trace]


def test_a_declaration_makes_nothing_and_a_value_what_it_needs(run: Run, tmp_path: Path) -> None:
    listed = run.table("texts", texts(6))
    loud = run.step(Step("upper", (upper(),), listed))
    copies = run.step(Step("copies", (twice(),), listed))
    model = run.train(TrainJob("count", counted, inputs={"data": loud}, stepwise=False))
    assert not (tmp_path / "out").exists()
    assert repr(copies) == "<step copies, not made yet>"
    assert (copies.name, "parent_id" in copies.schema.names, made(run)) == ("copies", True, [])
    assert copies.records == 12
    assert made(run) == ["texts", "copies"]
    run.finish()
    assert made(run) == ["texts", "upper", "copies", "count"], "told in the order of declaration"
    assert [one.inputs for one in run.trace] == [[], [listed.digest], [listed.digest], [loud.digest]]
    assert model.read("n.txt") == str(len(loud.url)).encode()


def test_a_value_that_comes_later_is_an_edge(run: Run) -> None:
    listed = run.table("texts", texts(6))
    loud = run.step(Step("upper", (upper(),), listed))

    def widened(loud: SealedSet) -> object:
        return upper(loud.records)

    again = run.step(Step("again", (later(widened, loud),), listed))
    more = later(lambda loud: {"data": listed, "more": loud.records}, loud)
    job = TrainJob("count", counted, inputs=more, stepwise=False)
    model = run.train(job)
    assert made(run) == []
    assert {node.name for node in nodes_in(job)} == {"upper"}
    assert again.read(0)["upper"].to_pylist()[0] == "TEXT 0" * 6
    assert made(run) == ["texts", "upper", "again"]
    by_name = {one.name: one for one in run.trace}
    assert by_name["again"].inputs == [listed.digest, loud.digest]
    assert int(model.read("n.txt")) == len(listed.url) + 6


def test_what_is_read_while_a_result_is_made_is_an_edge(run: Run) -> None:
    listed = run.table("texts", texts(6))
    hidden = run.step(Step("upper", (upper(),), listed))
    count = run.artifact("count", lambda url: {"n.txt": str(hidden.records).encode()}, {"version": 1})
    assert count.read("n.txt") == b"6"
    (trace,) = [one for one in run.trace if one.name == "count"]
    assert trace.inputs == [hidden.digest]


def test_identities_hold_handles(run: Run) -> None:
    listed = run.table("texts", texts(6))
    first = run.source("part", lambda: iter([listed.read(0).slice(0, 2)]), {"of": listed})
    second = run.source("part", lambda: iter([]), {"of": listed.digest})
    assert first.url == second.url, "a handle is its digest"
    assert run.trace[1].inputs == [listed.digest]


def test_a_check_waits_for_the_set_and_comes_before_its_use(run: Run) -> None:
    none = run.table("none", pa.table({"id": pa.array([], pa.string()), "text": pa.array([], pa.string())}))
    refuse_empty(none, "corpus.test")
    loud = run.step(Step("copies", (twice(),), none))
    with pytest.raises(UserError, match=r"^corpus.test: no record is left"):
        make(loud)
    assert made(run) == []
    seen: list[int] = []
    listed = run.table("texts", texts(2))
    make(listed)
    expect(listed, lambda sealed: seen.append(sealed.records))
    assert seen == [2], "one that is made is checked at once"


def test_an_error_leaves_what_was_made(run: Run) -> None:
    listed = run.table("texts", texts(4))
    tries = []

    def fail(url: str) -> dict[str, bytes]:
        tries.append(1)
        raise UserError("count: not now")

    count = run.artifact("count", fail, {"version": 1}, [listed])
    for number in (1, 2):
        with pytest.raises(UserError, match="not now"):
            run.finish()
        assert (made(run), len(tries)) == (["texts"], number)
    assert repr(count) == "<artifact count, not made yet>"


def test_a_handle_is_sent_as_what_it_stands_for(run: Run) -> None:
    listed = run.table("texts", texts(4))
    count = run.artifact("count", lambda url: {"n.txt": b"4"}, {"version": 1}, [listed])
    found, artifact, ref = pickle.loads(pickle.dumps((listed, count, count.ref)))
    assert type(found) is SealedSet
    assert type(artifact) is Artifact
    assert (found.digest, artifact.digest, ref.digest) == (listed.digest, count.digest, count.digest)
    assert resolved({"sets": [listed], "n": 1})["sets"][0].url == listed.url
    plain = {"n": [1, (2, 3)]}
    assert resolved(plain) is plain


def test_the_columns_of_a_stage_that_comes_later_are_those_of_what_was_made(run: Run) -> None:
    listed = run.table("texts", texts(4))
    again = run.step(Step("again", (later(lambda listed: upper(), listed),), listed))
    assert made(run) == []
    assert again.schema.names == ["id", "text", "duration", "upper"]
    assert made(run) == ["texts", "again"]


def test_a_handle_of_another_run_is_made_by_that(run: Run, tmp_path: Path) -> None:
    other = Run(str(tmp_path / "other"), InProcessRunner())
    listed = other.table("texts", texts(4))
    loud = run.step(Step("upper", (upper(),), listed))
    assert made(other) == ["texts"]
    assert (loud.records, made(run)) == (4, ["upper"])


def test_every_result_of_a_recipe_has_a_user(tmp_path: Path) -> None:
    from gristmill.pipelines.command.launch import carry_out
    from gristmill.pipelines.config import load
    from gristmill.pipelines.progress import RunProgress

    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(f"recipe: tests.pipelines.tiny\nout: {tmp_path}/out\nrunner: inprocess\n")
    done, _ = carry_out(load(str(recipe), []), RunProgress())
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    used = {name for node in report["lineage"] for name in node["inputs"]}
    read = {node.name for node in done.plan.nodes if node.is_read}
    assert {node["name"] for node in report["lineage"]} <= used | read
