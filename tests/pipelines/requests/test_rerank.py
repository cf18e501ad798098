"""The re-ranking recipe from end to end, small: in-process and on Ray, its weights replaced and used."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import Result

from gristmill.pipelines.command.plan import make_plan
from gristmill.pipelines.config import load
from gristmill.pipelines.requests.annotate import RequestAnnotator
from gristmill.shards.audit import audit_below
from tests.pipelines.commands import call
from tests.pipelines.lineage import without_user
from tests.pipelines.outputs import made

CONFIG = str(Path(__file__).parents[3] / "configs" / "rerank.yaml")
SMALL = [
    "seeds=[0]",
    "corpus={kind: assistant, lang: en, records: 400, ambiguous: 400, folds: 2, shard: {rows: 200}}",
    "lists={n: 12}",
]


def run(out: Path, *arguments: str) -> Result:
    return call("run", CONFIG, *SMALL, f"out={out}", *(arguments or ("runner=inprocess",)))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rerank")
    assert run(out).exit_code == 0
    return out


def weights(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "rerankers").iterdir()}


def metric(out: Path, system: str, test_set: str, name: str) -> float:
    report = json.loads((out / "report.json").read_text())
    wanted = (system, test_set, name, None)
    (row,) = [r for r in report["metrics"] if (r["system"], r["test_set"], r["metric"], r["seed"]) == wanted]
    return row["value"]


def test_every_system_is_scored_and_calibrated(finished: Path) -> None:
    report = json.loads((finished / "report.json").read_text())
    systems = {"R0", "R1", "R2", "R3", "R1_no_context", "R2_no_context", "R3_no_context"}
    for name in ("semer", "icer", "irer", "slot_f1", "exact_match", "ece", "ece_top1", "nll", "brier", "oracle_semer"):
        assert {row["system"] for row in report["metrics"] if row["metric"] == name} == systems
    assert {row["test_set"] for row in report["metrics"]} == {"test", "ambiguous"}
    assert {entry["domain"] for entry in report["reliability"]} >= {None, "music", "video", "books"}
    assert "Reliability" in (finished / "report.html").read_text()
    assert metric(finished, "R2", "test", "nll") < metric(finished, "R0", "test", "nll")
    assert metric(finished, "R3", "test", "semer") < metric(finished, "R0", "test", "semer")


def test_every_result_has_a_user(finished: Path) -> None:
    assert without_user(CONFIG, [*SMALL, "runner=inprocess"], finished) == []


def test_the_device_resolves_ambiguous_words(finished: Path) -> None:
    with_it, without = (metric(finished, system, "ambiguous", "semer") for system in ("R3", "R3_no_context"))
    assert with_it < 0.8 * without


def test_no_reading_comes_from_a_model_that_saw_the_request(finished: Path) -> None:
    lists = pa.concat_tables(made(finished, "hypotheses_0").tables(["fold", "hypotheses"]))
    assert set(lists["fold"].to_pylist()) == {-1, 0, 1}
    assert all(lists["hypotheses"].to_pylist())
    left_out = [json.loads(path.read_text())["left_out"] for path in finished.glob("domain_models/*/training-*.json")]
    domains = len(list((finished / "rerankers").iterdir()))
    assert sorted(map(str, left_out)) == sorted(["None", "0", "1"] * domains)


def test_run_again_does_nothing(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert "nothing to do" in run(finished).stdout
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


@pytest.mark.slow
def test_neural_domain_models_are_planned(tmp_path: Path) -> None:
    """Each model is of its own domain and fold, also in a trial."""
    neural = "domains={family: neural, settings: {dim: 4, hidden: 4, buckets: 64}}"
    plan = make_plan(load(CONFIG, [*SMALL, neural, f"out={tmp_path}"]), 2000)
    assert {"domain_models", "hypotheses_0"} <= {line.name for line in plan.lines}


@pytest.mark.slow
def test_ray_gives_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    assert run(tmp_path, "runner=ray", "workers=2").exit_code == 0
    found = {out: list(audit_below(str(out))) for out in (finished, tmp_path)}
    assert not [gap for audits in found.values() for audit in audits for gap in audit.gaps]
    one, other = ({(audit.name, audit.digest) for audit in audits} for audits in found.values())
    assert one == other
    assert weights(tmp_path) == weights(finished)


@pytest.mark.parametrize(
    "point",
    [
        pytest.param("domain_models/*/artifact.json", marks=pytest.mark.slow),
        pytest.param("hypotheses_0/*/receipts/*", marks=pytest.mark.slow),
        pytest.param("weights/*/artifact.json", marks=pytest.mark.slow),
    ],
)
def test_killed_at_any_point_it_ends_with_the_same_bytes(finished: Path, tmp_path: Path, point: str) -> None:
    command = [
        sys.executable,
        "-m",
        "gristmill.pipelines.command.cli",
        "run",
        CONFIG,
        *SMALL,
        f"out={tmp_path}",
        "runner=inprocess",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(list(tmp_path.glob(point))) < 2:
        assert process.poll() is None, "the run came to its end before it was killed"
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "report.json").exists()
    assert run(tmp_path).exit_code == 0
    found = {out: {(audit.name, audit.digest) for audit in audit_below(str(out))} for out in (finished, tmp_path)}
    assert found[finished] == found[tmp_path]
    assert weights(tmp_path) == weights(finished)


@pytest.mark.slow
def test_another_weighting_keeps_the_lists(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    output = run(out, "runner=inprocess", "weights.semer_weight=0.5").stdout
    assert "hypotheses_0" not in [
        path.name for path in out.iterdir() if len(list(path.glob("*"))) > 1 and path.is_dir()
    ]
    assert "kept from before" in output
    assert weights(out) != weights(finished)


@pytest.mark.slow
def test_a_peer_ranks_the_same_lists(finished: Path, tmp_path: Path) -> None:
    pytest.importorskip("lightgbm")
    digests = []
    for number in range(2):
        out = tmp_path / str(number)
        shutil.copytree(finished, out)
        assert run(out, "runner=inprocess", "peer=lambdarank").exit_code == 0
        digests.append({(audit.name, audit.digest) for audit in audit_below(str(out))})
        (folder,) = (out / "lambdarank").iterdir()
        digests[-1].add(("trees", json.loads((folder / "artifact.json").read_text())["digest"]))
    assert digests[0] == digests[1]
    assert metric(out, "lambdarank", "test", "semer") < metric(out, "R0", "test", "semer")
    raw, scaled = (metric(out, f"lambdarank{kind}", "test", "nll") for kind in ("", "_platt"))
    assert scaled < raw


def test_lists_are_ranked_by_a_folder_of_weights(finished: Path, tmp_path: Path) -> None:
    lists = made(finished, "hypotheses_0")
    ranked = made(finished, "ranked_0")
    table = pa.concat_tables(lists.tables(["id", "hypotheses", "device", "hour"]))
    pq.write_table(table, tmp_path / "lists.parquet")
    (tmp_path / "lists.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    wanted = pa.concat_tables(ranked.tables(["id", "scores_R3", "best_R3"]))
    for number, place in enumerate((lists.url, tmp_path / "lists.parquet", tmp_path / "lists.jsonl")):
        out = tmp_path / str(number)
        result = call("rerank", place, finished / "rerankers", out, "runner=inprocess", "--quiet")
        assert result.exit_code == 0, result.stderr
        scored = pa.concat_tables(made(out, "ranked").tables(["id", "scores", "best"]))
        assert scored["id"].to_pylist() == wanted["id"].to_pylist()
        assert scored["best"].to_pylist() == wanted["best_R3"].to_pylist()
        assert scored["scores"].to_pylist() == wanted["scores_R3"].to_pylist()
    again = call(
        "rerank", tmp_path / "lists.jsonl", finished / "rerankers", tmp_path / "2", "runner=inprocess", "--quiet"
    )
    assert "nothing to do" in again.stdout


def test_one_domain_is_exchanged_behind_a_gate(finished: Path, tmp_path: Path) -> None:
    folder, lists = tmp_path / "rerankers", made(finished, "hypotheses_0").url
    shutil.copytree(finished / "rerankers", folder)
    before = weights(tmp_path)
    good = json.loads(before["music.json"])
    worse = tmp_path / "music.json"
    worse.write_text(json.dumps(good | {"bias": good["bias"] + 5.0}))
    refused = call("swap", worse, folder, lists)
    assert refused.exit_code == 2
    assert "log loss" in refused.stderr
    assert weights(tmp_path) == before
    # In the other direction the change is an improvement.
    (folder / "music.json").write_bytes(worse.read_bytes())
    worse.write_bytes(before["music.json"])
    assert call("swap", worse, folder, lists).exit_code == 0
    assert weights(tmp_path) == before
    assert "in use already" in call("swap", worse, folder, lists).stderr


def test_a_list_that_cannot_be_scored_costs_itself(finished: Path, tmp_path: Path) -> None:
    lists = tmp_path / "lists.jsonl"
    scores = {"domain_logprob": -0.1, "intent_logprob": -0.2, "slots_logprob": -0.3}
    context = {"device": "phone", "hour": 9.5}
    good = [{"domain": "music", **scores}, {"domain": "video", **scores}]
    bad = [[{**good[0], "domain": None}], [{**good[0], "domain": "cooking"}], [{**good[0], "slots_logprob": None}]]
    rows = [{"id": f"r{i}", "hypotheses": one, **context} for i, one in enumerate([good, *bad, []])]
    lists.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = call("rerank", lists, finished / "rerankers", tmp_path / "out", "runner=inprocess", "--quiet")
    assert result.exit_code == 0, result.stderr
    assert "3 lists could not be scored" in result.stdout
    scored = pa.concat_tables(made(tmp_path / "out", "ranked").tables(["id", "best"])).to_pylist()
    assert [row["id"] for row in scored] == ["r0", "r4"]
    assert scored[1]["best"] == -1
    (folder,) = (tmp_path / "out" / "ranked").iterdir()
    shown = call("inspect", folder, "--quarantine").stdout
    assert "cooking" in shown
    lists.write_text("".join(json.dumps(row) + "\n" for row in rows[1:4]))
    assert call("rerank", lists, finished / "rerankers", tmp_path / "none", "runner=inprocess").exit_code == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["weights={context: [weather]}"], "'weather' is not a context column"),
        (["slice=noisy"], "slice: 'noisy' is not a context column"),
        (["corpus.ambiguous=0"], "weights.context: 'device', 'hour' are no context columns of the requests; expected"),
        (["corpus.ambiguous=0"], "expected corpus.ambiguous=N, which adds N requests that have device, hour and"),
        (["corpus.ambiguous=0"], "slice: 'ambiguous' is not a context column"),
        (["corpus.ambiguous=0", "weights.context=[]"], "or slice=null, without any"),
        (["corpus={kind: files, places: DATA, ambiguous: 0}"], "expected corpus.context={device: KIND} if the corpora"),
        (["slice=device"], "'device' is not boolean"),
        (["lists.n=0"], "lists.n: 0 is not right"),
        (["corpus={kind: files, places: /nowhere, ambiguous: 0}"], "/nowhere"),
        (
            ["domains.settings={depth: 3}"],
            "domains.settings: depth: there is no such setting; expected one of balanced,",
        ),
        (["domains.settings={domain_C: 3}"], "did you mean 'domain_c'?"),
        (["domains.settings={crf: {l1: -1}}"], "domains.settings: crf.l1: -1 is not right"),
        (["domains={family: neural, settings: {min_count: 1}}"], "settings: min_count: there is no such setting"),
        (["domains={family: forest, settings: {min_count: 1}}"], "domains.family: 'forest' is not right"),
        (["weights={negative: 0.5}"], "weights.negative: there is no such setting, did you mean 'negatives'?"),
        (["corpus={kind: files, places: x, context: {text: string}, ambiguous: 0}"], "'text' is a column of every"),
    ],
)
def test_mistakes_are_errors_before_anything_is_made(tmp_path: Path, overrides: list[str], message: str) -> None:
    (tmp_path / "requests.jsonl").write_text('{"text": "play it", "domain": "music", "intent": "play"}\n')
    overrides = [each.replace("DATA", str(tmp_path / "requests.jsonl")) for each in overrides]
    result = run(tmp_path / "out", "runner=inprocess", *overrides)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_few_requests_without_a_common_word_are_ranked(tmp_path: Path) -> None:
    """No n-gram is a feature, and a test of one request has no interval."""
    texts = [3 * letter for letter in "abcdefghijklmnop"]
    rows = [{"text": text, "domain": "music" if text < "i" else "video", "intent": "play"} for text in texts]
    for name, some in (("train", rows[1:]), ("test", rows[:1])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    corpus = f"places: {tmp_path}/train.jsonl, test: {tmp_path}/test.jsonl, lang: en, ambiguous: 0, folds: 2"
    given = ["seeds=[0]", f"corpus={{{corpus}, kind: files, test_share: 0}}", "slice=null", "weights={context: []}"]
    result = call("run", CONFIG, *given, "domains.negatives=[2, 12]", f"out={tmp_path}/out", "runner=inprocess")
    assert result.exit_code == 0, result.stderr
    fitted = (json.loads(path.read_text()) for path in (tmp_path / "out").glob("domain_models/*/training-*.json"))
    assert {one["grams"] for one in fitted} == {0}
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    semer = [row for row in report["metrics"] if row["metric"] == "semer"]
    assert {(row["n"], row["low"], row["high"]) for row in semer} == {(1, None, None)}


def test_weights_and_lists_that_do_not_fit_are_refused(finished: Path, tmp_path: Path) -> None:
    lists, folder = tmp_path / "lists.jsonl", tmp_path / "rerankers"
    shutil.copytree(finished / "rerankers", folder)
    other = json.loads((folder / "video.json").read_text())
    (folder / "video.json").write_text(json.dumps(other | {"format": 99}))
    lists.write_text('{"id": "a", "hypotheses": []}\n')
    old = call("rerank", lists, folder, tmp_path / "out", "runner=inprocess")
    assert (old.exit_code, "format 99" in old.stderr) == (2, True)
    lists.write_text('{"id": "a", "hypotheses": [}\n')
    torn = call("rerank", lists, finished / "rerankers", tmp_path / "out", "runner=inprocess")
    assert (torn.exit_code, "lists.jsonl#line1: malformed record" in torn.stderr) == (2, True)
    lists.write_text('{"hypotheses": []}\n')
    nameless = call("rerank", lists, finished / "rerankers", tmp_path / "out", "runner=inprocess")
    assert (nameless.exit_code, "lists.jsonl#line1: no id" in nameless.stderr) == (2, True)
    none = call("rerank", tmp_path / "no.parquet", finished / "rerankers", tmp_path / "out", "runner=inprocess")
    assert (none.exit_code, "no such file" in none.stderr) == (2, True)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").glob("ranked*"))


def test_requests_are_annotated_as_the_recipe_reads_them(finished: Path, tmp_path: Path) -> None:
    rows = [row for table in made(finished, "ranked_0").tables() for row in table.to_pylist() if row["fold"] == -1]
    annotator = RequestAnnotator(str(finished))
    assert annotator.said.startswith(
        "R3, the best of 4 systems on average over the test sets, beside 3 without a model to use (SemER "
    )
    assert annotator.columns == ("device", "hour")
    found = annotator.annotate({name: row[name] for name in ("text", "device", "hour")} for row in rows)
    for row, one in zip(rows, found, strict=True):
        best = row["hypotheses"][row["best_R3"]]
        assert (one.domain, one.intent, [slot._asdict() for slot in one.slots]) == (
            best["domain"],
            best["intent"],
            best["slots"],
        )
        assert one.confidence == pytest.approx(row["scores_R3"][row["best_R3"]])
    # As lines: without context, with a mark at the end, blank, and as JSON.
    text, device = rows[0]["text"], rows[0]["device"]
    lines = [f"{text}?", "", json.dumps({"text": text, "device": device, "hour": rows[0]["hour"]})]
    (tmp_path / "requests.txt").write_text("\n".join(lines))
    result = call("annotate", finished, tmp_path / "requests.txt")
    assert result.exit_code == 0
    plain, blank, known = result.stdout.splitlines()
    (one,) = annotator.annotate(text)
    assert list(annotator.annotate({"text": text}, [text])) == [one, one]
    assert (plain.split("\t")[:3], blank) == ([one.domain, one.intent, f"{one.confidence:.3f}"], "")
    assert known.split("\t")[2] == f"{rows[0]['scores_R3'][rows[0]['best_R3']]:.3f}"
    model = tmp_path / "model"
    assert call("publish", finished, "best", model).exit_code == 0
    assert call("annotate", model, tmp_path / "requests.txt").stdout == result.stdout
    wrong = call("transcribe", finished, tmp_path / "requests.txt")
    assert (wrong.exit_code, f"gristmill annotate {finished} REQUESTS.txt" in wrong.stderr) == (2, True)


def test_a_request_that_cannot_be_read_costs_itself(finished: Path, tmp_path: Path) -> None:
    good = {"text": "play blue river", "device": "tv", "hour": 20}
    bad = {
        2: ({**good, "hour": "20"}, '"hour" is a text; expected a number'),
        3: ({**good, "device": 3}, '"device" is a number; expected a text'),
        4: ({**good, "device": ["tv"]}, '"device" is a list; expected a text'),
        5: ({**good, "hour": True}, '"hour" is true or false; expected a number'),
        6: ({**good, "hour": 10**400}, '"hour" is too large a number'),
        7: ({"device": "tv"}, 'has no "text"'),
        8: ({**good, "text": None}, '"text" is null; expected a text'),
        9: ({**good, "text": 3}, '"text" is a number; expected a text'),
        10: ([good], 'a list; expected an object, as {"text": ...}'),
        11: (b"{", "no JSON"),
        12: (b'{"text": "play \\ud800"}', "no JSON"),
        13: (b"\xff", "not UTF-8"),
    }
    lines = [json.dumps(good).encode()]
    lines += [line if isinstance(line, bytes) else json.dumps(line).encode() for line, _ in bad.values()]
    lines += [b"", json.dumps({**good, "device": None}).encode()]
    path = tmp_path / "requests.txt"
    path.write_bytes(b"\n".join(lines) + b"\n")
    result = call("annotate", finished, path)
    assert result.exit_code == 1
    told = [line for line in result.stderr.splitlines() if str(path) in line]
    assert told == [f"gristmill: {path}:{number}: {problem}" for number, (_, problem) in bad.items()]
    assert f"{len(bad)} requests without a reading" in result.stderr
    read = result.stdout.splitlines()
    assert [number for number, line in enumerate(read, 1) if line] == [1, 15]
    (alone,) = RequestAnnotator(str(finished)).annotate([good])
    assert read[0].split("\t")[:3] == [alone.domain, alone.intent, f"{alone.confidence:.3f}"]
    rows = [json.loads(line) for line in call("annotate", finished, path, "-f", "jsonl").stdout.splitlines()]
    assert [row["problem"] for row in rows[1:13]] == [problem for _, problem in bad.values()]

    # In .jsonl each line is an object; the same fault is told ten times.
    path = tmp_path / "requests.jsonl"
    path.write_text("play\n" * 30 + json.dumps(good) + "\n")
    result = call("annotate", finished, path, "-q")
    assert (result.exit_code, result.stdout.splitlines()) == (1, [""] * 30 + read[:1])
    assert result.stderr.count("no JSON") == 11
    assert "and 20 more as: no JSON" in result.stderr


def test_a_half_of_a_surrogate_pair_is_the_problem_of_its_request(finished: Path) -> None:
    given = [{"text": "play \ud800"}, {"text": "play", "device": "\ud800"}, "play blue river"]
    first, second, third = RequestAnnotator(str(finished)).annotate(given)
    assert (first.problem, second.problem) == (
        '"text" has half of a surrogate pair',
        '"device" has half of a surrogate pair',
    )
    assert third.problem is None
