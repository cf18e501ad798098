"""The expansion recipe from end to end, small: a new function of a generated corpus, and one of the user's own."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import Result

from gristmill.pipelines.requests.annotate import RequestAnnotator
from gristmill.shards.dataset import SealedSet
from tests.actors.embedders import make_embedder
from tests.pipelines.commands import call
from tests.pipelines.lineage import without_user
from tests.pipelines.outputs import digests, made

CONFIG = str(Path(__file__).parents[3] / "configs" / "expand.yaml")
SYSTEMS = {
    *("seeds", "random", "self", "fused_seeds", "fused", "diverse_half", "diverse_quarter", "all_gold", "annotated"),
    *("random_half", "random_quarter", "top_half", "top_quarter"),
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    embedder = make_embedder(tmp_path_factory.mktemp("embedder") / "tiny")
    return [
        "seeds=[0]",
        "corpus={kind: assistant, lang: en, records: 500, test_share: 0.35, shard: {rows: 100}}",
        "functions=[{name: timers, domains: [timer]}]",
        f"embedder={{embedder: {embedder}}}",
        "training={count: 60, rounds: 2}",
        "annotate=5",
    ]


def run(out: Path, small: Sequence[str], *more: str) -> Result:
    return call("run", CONFIG, *small, *(more or ("runner=inprocess",)), f"out={out}")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, small: list[str]) -> Path:
    out = tmp_path_factory.mktemp("expand")
    result = run(out, small)
    assert result.exit_code == 0, result.stderr
    return out


def ids(made: SealedSet) -> set[str]:
    return {name for table in made.tables(["id"]) for name in table["id"].to_pylist()}


def test_every_system_is_measured_on_the_new_function(finished: Path) -> None:
    report = json.loads((finished / "report.json").read_text())
    for metric in ("semer", "f1", "f1_best", "exact", "false_accept", "semer_half", "f1_half"):
        rows = [row for row in report["metrics"] if row["metric"] == metric and row["seed"] is None]
        assert {row["system"] for row in rows} == SYSTEMS
        assert {row["test_set"] for row in rows} == {"target"}
        assert all(row["low"] <= row["value"] <= row["high"] for row in rows)
    page = (finished / "report.html").read_text()
    for said in (
        "Where the pool went",
        "Fewer requests, by selector",
        "Learning curves",
        "typical",
        "Self-labels of fused",
    ):
        assert said in page


def test_the_parts_are_apart_and_the_pool_has_no_labels(finished: Path) -> None:
    parts = {name: made(finished, f"{name}_timers{end}") for name, end in _ENDS.items()}
    for one, other in ((a, b) for a in parts for b in parts if a < b):
        assert not ids(parts[one]) & ids(parts[other]), f"{one} and {other}"
    assert parts["seeds"].records == 20
    assert not {"domain", "intent", "slots"} & set(parts["pool"].schema.names)
    domains = {name for table in parts["others"].tables(["domain"]) for name in table["domain"].to_pylist()}
    assert {"light", "climate"} <= domains
    assert not {"timer", "timers"} & domains
    assert {name for table in parts["seeds"].tables(["domain"]) for name in table["domain"].to_pylist()} == {"timers"}


_ENDS = {"seeds": "_20_0", "pool": "_20_0", "others": "_0", "test": "_0"}


def test_what_is_trained_on_comes_from_the_filtered_pool(finished: Path) -> None:
    filtered, added = made(finished, "filtered_fused_2_timers_20_0"), made(finished, "labelled_fused_2_timers_20_0")
    assert filtered.records == 60
    assert list(filtered.seal["reasons"]) == ["keep: not among the 60 most relevant"]
    assert list(made(finished, "random_pool_timers_20_0").seal["reasons"]) == [
        f"keep: not among the {made(finished, 'random_pool_timers_20_0').records} drawn at random"
    ]
    assert ids(added) <= ids(filtered) <= ids(made(finished, "pool_timers_20_0"))
    rows = [row for table in added.tables(["label_source", "confidence", "domain"]) for row in table.to_pylist()]
    assert {row["label_source"] for row in rows} == {"pseudo"}
    assert all(0 <= row["confidence"] <= 1 for row in rows)
    for part, share in (("half", 0.5), ("quarter", 0.25)):
        sizes = {made(finished, f"{name}_{part}_timers_20_0").records for name in ("diverse", "random", "top")}
        assert sizes == {max(1, round(share * added.records))}


@pytest.mark.parametrize("system", [None, "self", "fused_seeds"])
def test_requests_are_annotated_as_the_recipe_read_its_test(finished: Path, tmp_path: Path, system: str | None) -> None:
    """Line for line what the report counted: the function's requests that are accepted, and no others."""
    annotator = RequestAnnotator(str(finished), system=system)
    name = annotator.said.split(",")[0].split(" ")[0]
    assert name == system or system is None
    rows = pa.concat_tables(made(finished, "tested_timers_20_0").tables(["text", f"read_{name}"])).to_pylist()
    read = list(annotator.annotate(row["text"] for row in rows))
    for row, one in zip(rows, read, strict=True):
        counted = row[f"read_{name}"]
        accepted = counted["logprob"] >= counted["threshold"]
        assert (one.domain, one.problem) == ("timers" if accepted else "", None)
        assert [reading["domain"] for reading in one.readings] == ["timers"]
        if accepted:
            assert one.intent == counted["intent"]
            assert [slot._asdict() for slot in one.slots] == counted["slots"]
    lines = write(tmp_path / "requests.jsonl", [{"text": row["text"]} for row in rows[:9]])
    asked = [] if system is None else ["--system", system]
    called = call("annotate", finished, lines, *asked)
    assert called.exit_code == 0, "a request of another function is no problem"
    told = called.stdout.splitlines()
    assert [line.split("\t")[0] for line in told] == [one.domain for one in read[:9]]


@pytest.mark.parametrize("system", ["best", "self"])
def test_a_published_folder_reads_as_the_run(finished: Path, tmp_path: Path, system: str) -> None:
    """It needs nothing of the run: the embedder that ``fused`` reads lies in it."""
    texts = [text for table in made(finished, "test_timers_0").tables(["text"]) for text in table["text"].to_pylist()]
    lines = write(tmp_path / "requests.jsonl", [{"text": text} for text in texts[:40]])
    model = tmp_path / "model"
    published = call("publish", finished, system, model)
    assert published.exit_code == 0, published.stderr
    assert published.stdout.splitlines()[-1] == f"next: gristmill annotate {model} REQUESTS.txt"
    asked = [] if system == "best" else ["--system", system]
    of_run, of_folder = call("annotate", finished, lines, *asked), call("annotate", model, lines)
    assert (of_folder.exit_code, of_folder.stdout) == (0, of_run.stdout)
    assert "timers\tHassStartTimer" in of_folder.stdout
    card = (model / "README.md").read_text()
    name = json.loads((model / "settings.json").read_text())["reads"]["system"]
    rows = json.loads((finished / "report.json").read_text())["metrics"]
    (own,) = (row for row in rows if (row["system"], row["metric"], row["seed"]) == (name, "semer", None))
    assert f"| {own['value']:.1%} | {own['low']:.1%} to {own['high']:.1%} |".replace("%", " %") in card
    assert str(finished.parent) not in card
    (block,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    exec(block.replace('"."', repr(str(model))), {})
    assert "nothing to do" in call("publish", finished, system, model).stdout
    assert call("annotate", model, lines, "--system", "seeds").exit_code == 2
    weights = next(model.glob("models/timers/weights-*"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    damaged = call("annotate", model, lines)
    assert (damaged.exit_code, damaged.stdout) == (1, "")
    assert f"{weights}: its bytes are not those that were committed" in damaged.stderr
    assert call("publish", finished, system, model).exit_code == 0
    assert call("annotate", model, lines).stdout == of_run.stdout


def test_what_is_fitted_to_the_seeds_alone_is_one_for_all_systems(finished: Path) -> None:
    fitted = {path.parent.parent.name for path in finished.glob("relevance_*/*/artifact.json")}
    assert fitted == {"relevance_self_1", "relevance_self_2", "relevance_fused_2"}
    assert not list(finished.glob("filtered_fused_1*"))


def test_every_result_has_a_user(finished: Path, small: list[str]) -> None:
    assert without_user(CONFIG, [*small, "runner=inprocess"], finished) == []


def test_run_again_does_nothing(finished: Path, small: list[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert "nothing to do" in run(finished, small).stdout
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


@pytest.mark.slow
def test_killed_in_self_training_it_ends_with_the_same_bytes(finished: Path, small: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gristmill.pipelines.command.cli", "run", CONFIG, *small, f"out={tmp_path}"]
    process = subprocess.Popen([*command, "runner=inprocess"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("labelled_self_1_*/*/receipts/*")):
        assert process.poll() is None, "the run came to its end before it was killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "report.json").exists()
    assert run(tmp_path, small).exit_code == 0
    assert digests(tmp_path) == digests(finished)


@pytest.mark.slow
def test_a_detector_of_paraphrases_selects(finished: Path, small: list[str], tmp_path: Path) -> None:
    tiny = "detector={requests: 100, detector: {steps: 20}}"
    result = run(tmp_path, small, "runner=inprocess", "selectors=[worst_paraphrase]", tiny)
    assert result.exit_code == 0, result.stderr
    added = made(tmp_path, "labelled_fused_2_timers_20_0").records
    assert made(tmp_path, "worst_paraphrase_half_timers_20_0").records == max(1, round(0.5 * added))
    plain = tmp_path / "plain"
    assert run(plain, small, "runner=inprocess", "selectors=[worst_paraphrase]").exit_code == 0
    assert not list(plain.glob("detector*"))


@pytest.mark.slow
def test_ray_gives_the_same_expansion(finished: Path, small: list[str], tmp_path: Path) -> None:
    pytest.importorskip("ray")
    result = run(tmp_path, small, "runner=ray", "workers=2")
    assert result.exit_code == 0, result.stderr
    assert digests(tmp_path) == digests(finished)


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def own(finished: Path, tmp_path: Path) -> dict[str, Any]:
    """Files of a user's own: annotated requests of others, seeds, and a pool of plain text."""
    columns = ["text", "intent", "slots"]

    def rows(name: str) -> list[dict[str, Any]]:
        found = pa.concat_tables(made(finished, name).tables(columns)).to_pylist()
        return [{**row, "slots": [{k: s[k] for k in ("name", "value")} for s in row["slots"]]} for row in found]

    pool = [text for table in made(finished, "pool_timers_20_0").tables(["text"]) for text in table["text"].to_pylist()]
    (tmp_path / "pool.txt").write_text("\n".join(pool) + "\n")
    return {
        "seeds": rows("seeds_timers_20_0"),
        "seeds file": write(tmp_path / "seeds.jsonl", rows("seeds_timers_20_0")),
        "others": write(tmp_path / "others.jsonl", [{**row, "domain": "home"} for row in rows("others_timers_0")]),
        "pool": tmp_path / "pool.txt",
    }


def expand_own(small: list[str], given: dict[str, Any], functions: str, out: Path, *more: str) -> Result:
    (embedder,) = [one for one in small if one.startswith("embedder")]
    corpus = f"corpus={{kind: files, places: {given['others']}, test_share: 0}}"
    fixed = [
        corpus,
        "functions=[]",
        embedder,
        "training={first_cut: 100, count: 60, rounds: 1}",
        "selectors=[]",
        "annotate=5",
    ]
    return call(
        "run", CONFIG, *fixed, f"own={functions}", f"pool={given['pool']}", f"out={out}", "runner=inprocess", *more
    )


def test_two_functions_of_ones_own_end_with_models_and_files_for_annotators(
    small: list[str], own: dict[str, Any], tmp_path: Path
) -> None:
    stop = [
        {"text": text, "intent": "stop", "slots": []} for text in ("stop it all", "stop now", "stop", "please stop")
    ]
    places = {"timers": own["seeds file"], "stop": write(tmp_path / "stop.jsonl", stop)}
    both = "[" + ", ".join(f"{{name: {name}, seeds: {place}}}" for name, place in places.items()) + "]"
    result = expand_own(small, own, both, tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert {path.name for path in (tmp_path / "out").glob("relevance_*")} == {"relevance_first_cut"}
    told = result.stdout.splitlines()
    assert told[-1] == f"next: gristmill annotate {tmp_path / 'out'} REQUESTS.txt"
    assert "model: fused (nothing was measured)" in told
    for name in places:
        file = tmp_path / "out" / f"to_annotate_{name}.jsonl"
        lines = file.read_text().splitlines()
        assert any(line.endswith(f"the seeds): {file}") for line in told) == bool(lines)
        assert made(tmp_path / "out", f"candidates_{name}_0").records == 100
    assert "embedding" not in made(tmp_path / "out", "pool_unique").schema.names
    rows = [json.loads(line) for line in (tmp_path / "out" / "to_annotate_timers.jsonl").read_text().splitlines()]
    assert 1 <= len(rows) <= 5
    (read,) = RequestAnnotator(str(tmp_path / "out")).annotate(own["seeds"][0]["text"])
    assert (read.domain, read.intent) == ("timers", own["seeds"][0]["intent"])
    again = write(tmp_path / "more.jsonl", [*own["seeds"], *rows])
    assert expand_own(small, own, f"[{{name: timers, seeds: {again}}}]", tmp_path / "more").exit_code == 0


@pytest.mark.parametrize("case", ["one request", "nothing relevant"])
def test_very_little_is_a_result(small: list[str], own: dict[str, Any], tmp_path: Path, case: str) -> None:
    given = own["seeds"][:1] if case == "one request" else own["seeds"]
    if case == "nothing relevant":
        own["pool"].write_text("zxq vvw\nqqq uuu\nmmm nnn ooo\n")
    seeds = write(tmp_path / "few.jsonl", given)
    result = expand_own(small, own, f"[{{name: timers, seeds: {seeds}}}]", tmp_path / "out")
    assert "Traceback" not in result.stderr
    assert result.exit_code == 0, result.stderr
    added = made(tmp_path / "out", "labelled_fused_1_timers_0").records
    told = "Nothing of the pool was accepted for timers_0" in (tmp_path / "out" / "report.json").read_text()
    assert told == (added == 0)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["functions=[]"], "functions and own: expected one of them"),
        (["functions=[{name: timers}]"], "timers: neither intents nor domains"),
        (["functions=[{name: a, domains: [timer]}, {name: a, domains: [lists]}]"], "a name of its own for each"),
        (["functions=[{name: trains, domains: [railway]}]"], "seeds of trains: no record is left"),
        (["pool=texts"], "pool: expected the URL of text without labels with own"),
        (["selector=best"], "selector: 'best' is not right"),
        (["training.rounds=0"], "training.rounds: 0 is not right"),
        (["functions=[{name: a/b, domains: [timer]}]"], "expected a name without /"),
    ],
)
def test_mistakes_of_an_expansion_are_sentences(
    small: list[str], tmp_path: Path, overrides: list[str], message: str
) -> None:
    result = run(tmp_path / "out", small, "runner=inprocess", *overrides)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_what_a_user_gives_is_checked_before_any_work(small: list[str], own: dict[str, Any], tmp_path: Path) -> None:
    seeds, empty = own["seeds file"], tmp_path / "empty.jsonl"
    empty.touch()
    plain = tmp_path / "plain.txt"
    plain.write_text("set a timer\n")
    alone = write(tmp_path / "alone.jsonl", [{**row, "domain": "timers"} for row in own["seeds"]])
    cases = {
        f"[{{name: ../../x, seeds: {seeds}}}]": "expected a name of visible characters",
        f"[{{name: timers, seeds: {seeds}, test: {seeds}}}]": "each file in one place",
        f"[{{name: timers, seeds: {seeds}}}, {{name: stop, seeds: {seeds}}}]": "each file in one place",
        f"[{{name: timers, seeds: {plain}}}]": "plain.txt",
        f"[{{name: timers, seeds: {empty}}}]": "empty.jsonl",
        f"[{{name: timers, seeds: {tmp_path / 'none.jsonl'}}}]": "none.jsonl",
    }
    for functions, sentence in cases.items():
        result = expand_own(small, own, functions, tmp_path / "out")
        assert (result.exit_code, "Traceback" in result.stderr) == (2, False), result.stderr
        assert sentence in result.stderr.splitlines()[-1], functions
        assert not list((tmp_path / "out").glob("*/*/seal.json"))
    own["pool"].unlink()
    missing = expand_own(small, own, f"[{{name: timers, seeds: {seeds}}}]", tmp_path / "out")
    assert "pool.txt" in missing.stderr.splitlines()[-1]
    own["pool"].write_text("set a timer\n")
    one = {**own, "others": alone}
    result = expand_own(small, one, f"[{{name: timers, seeds: {seeds}}}]", tmp_path / "alone")
    assert (result.exit_code, "annotated requests of other functions than timers: no record" in result.stderr) == (
        2,
        True,
    )
