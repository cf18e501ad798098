"""The bootstrapping recipe end to end, small: in-process, on Ray, killed, with switches, and with wrong settings."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import Result

from gristmill.actors.text import lm_engine
from gristmill.actors.text.language_model import LanguageModel
from gristmill.actors.text.translator_files import FAST
from gristmill.pipelines.text.bootstrap_report import publish
from gristmill.pipelines.text.score import TextScorer
from gristmill.pipelines.text.translate import find_translator
from gristmill.shards.artifact import put_artifact
from gristmill.shards.audit import audit_below
from gristmill.shards.dataset import open_sealed
from tests.pipelines.commands import call
from tests.pipelines.lineage import without_user

pytest.importorskip("ctranslate2")
pytest.importorskip("kenlm")

CONFIG = str(Path(__file__).parents[3] / "configs" / "bootstrap-lm.yaml")
SMALL = [
    "seeds=[0]",
    "pairs.records=300",
    "in_domain={domains: [light, timer], target_records: 300, source_records: 80, reference_records: 12, "
    "sizes: [1, 4], shard: {rows: 100}}",
    "selection={method: moore_lewis, share: 0.5, compare: false}",  # embeddings have tests of their own
    "translator={model: {dim: 16, encoder_layers: 1, decoder_layers: 1, ff: 32, heads: 2}, units: 120, epochs: 2}",
    "translation={n: 3, beam: 3}",
    "tuning={weights: [0.5], keeps: [1.0, 0.5]}",
    "channel={n: 20}",
]
ONE_SIZE = ["in_domain.sizes=[4]"]
SYSTEMS = ["in_domain", "raw", "selected", "fine_tuned", "rescored", "filtered", "combined"]


def run(out: Path, *arguments: str) -> Result:
    return call("run", CONFIG, *SMALL, f"out={out}", *(arguments or ("runner=inprocess",)))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bootstrap")
    assert run(out).exit_code == 0
    return out


def digests(out: Path) -> set[tuple[str, str]]:
    audits = list(audit_below(str(out)))
    assert not [gap for audit in audits for gap in audit.gaps]
    models = {
        (path.parent.parent.name, json.loads(path.read_text())["digest"]) for path in out.glob("*/*/artifact.json")
    }
    return {(audit.name, audit.digest) for audit in audits} | models


@pytest.mark.slow
def test_a_store_in_place_of_kenlm_changes_nothing(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = []
    monkeypatch.setattr(lm_engine, "kenlm_installed", lambda: bool(scored.append(1)))
    assert run(tmp_path / "out").exit_code == 0
    assert scored
    assert digests(tmp_path / "out") == digests(finished)
    one, other = (json.loads((out / "report.json").read_text())["metrics"] for out in (tmp_path / "out", finished))
    assert one == other


def test_every_system_is_measured_at_every_size(finished: Path) -> None:
    report = json.loads((finished / "report.json").read_text())
    rows = {(row["system"], row["test_set"], row["metric"]): row for row in report["metrics"] if row["seed"] is None}
    for system in SYSTEMS:
        for size in ("1/1", "1/4"):
            for metric in ("perplexity", "perplexity_known", "oov", "wer"):
                row = rows[system, size, metric]
                assert row["low"] <= row["value"] <= row["high"], row
            if system not in ("in_domain", "filtered"):
                assert 0 <= rows[system, size, "chrf"]["value"] <= 100
                assert 0 <= rows[system, size, "bleu"]["value"] <= 100
    assert any("CHRF: nrefs:var" in note for note in report["notes"])
    assert {"selected pairs, 1/4", "filtered translations, 1/4"} <= {one["name"] for one in report["filters"]}
    page = (finished / "report.html").read_text()
    assert "Kept and dropped by filters" in page


@pytest.mark.slow
def test_ways_of_selection_are_compared(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    assert run(out, "runner=inprocess", "selection.compare=true").exit_code == 0
    report = json.loads((out / "report.json").read_text())
    rows = {(row["system"], row["metric"]): row for row in report["metrics"] if row["test_set"] == "1/1"}
    for share in ("centroid_share", "moore_lewis_share", "random_share"):
        assert rows[share, "chrf"]["n"] == 12


def test_with_less_in_domain_text_models_are_worse_and_the_gain_is_larger(finished: Path) -> None:
    report = json.loads((finished / "report.json").read_text())
    value = {
        (row["system"], row["test_set"]): row["value"]
        for row in report["metrics"]
        if row["metric"] == "perplexity" and row["seed"] is None
    }
    assert value["in_domain", "1/4"] > value["in_domain", "1/1"]
    # Weights are chosen on development text, so that useless translations do almost no harm.
    assert all(value[system, "1/4"] <= 1.05 * value["in_domain", "1/4"] for system in SYSTEMS)


def test_the_mixed_model_is_published(finished: Path) -> None:
    model = LanguageModel(str(finished / "language_models" / "1-4.arpa"))
    known, oov = model.score(["लाइट", "चालू", "करो"])
    assert known < 0
    assert oov == 0


def test_every_result_has_a_user(finished: Path) -> None:
    assert without_user(CONFIG, [*SMALL, "runner=inprocess"], finished) == []


def test_run_again_does_nothing(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert "nothing to do" in run(finished).stdout
    assert "nothing to do" in call("requeue", finished).stdout
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_models_of_removed_sizes_are_removed(tmp_path: Path) -> None:
    model = put_artifact(str(tmp_path / "lm"), {"lm.arpa": b"x"}, {})
    publish(str(tmp_path), {1: model, 10: model})
    (tmp_path / "language_models" / "mine.arpa").write_bytes(b"")
    publish(str(tmp_path), {1: model})
    assert {path.name for path in (tmp_path / "language_models").iterdir()} == {"1-1.arpa", "mine.arpa"}


@pytest.mark.slow
def test_nothing_is_tuned_without_rescoring_and_filtering(tmp_path: Path) -> None:
    off = "techniques={selection: false, fine_tuning: false, rescoring: false, filtering: false}"
    result = run(tmp_path, "runner=inprocess", off, *ONE_SIZE)
    assert result.exit_code == 0, result.stderr
    assert "; 0 kept from before" in result.stdout
    assert not (tmp_path / "tuned").exists()
    assert not any("Rescoring" in note for note in json.loads((tmp_path / "report.json").read_text())["notes"])


@pytest.fixture(scope="module")
def one_size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("one_size")
    assert run(out, "runner=inprocess", *ONE_SIZE).exit_code == 0
    return out


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_ray_gives_the_same_bytes(one_size: Path, tmp_path: Path, workers: int) -> None:
    pytest.importorskip("ray")
    assert run(tmp_path, "runner=ray", f"workers={workers}", *ONE_SIZE).exit_code == 0
    assert digests(tmp_path) == digests(one_size)


@pytest.mark.slow
def test_a_users_checkpoint_is_used_unchanged(finished: Path, tmp_path: Path) -> None:
    (made,) = (finished / "translator").glob("*/artifact.json")
    user = tmp_path / "user"
    user.mkdir()
    for name, path in json.loads(made.read_text())["files"].items():
        if not name.startswith(FAST):
            (user / name).write_bytes((made.parent / path).read_bytes())
    as_it_is = f"translator={{checkpoint: {user}, train: false}}"
    result = run(tmp_path / "out", "runner=inprocess", as_it_is, *ONE_SIZE, "techniques.fine_tuning=false")
    assert result.exit_code == 0, result.stderr
    rows = json.loads((tmp_path / "out" / "report.json").read_text())["metrics"]
    trained = json.loads((finished / "report.json").read_text())["metrics"]
    assert [row for row in rows if row["system"] == "raw"] == [
        row for row in trained if row["system"] == "raw" and row["test_set"] == "1/4"
    ]
    errors = run(tmp_path / "none", "runner=inprocess", "translator.train=false").stderr
    assert "no checkpoint is given" in errors
    errors = run(tmp_path / "none", "runner=inprocess", f"translator.checkpoint={tmp_path / 'nowhere'}").stderr
    assert "nowhere" in errors
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "point", ["translated_raw_1-1_0/*/receipts/*", "tuned/*/artifact.json", "judged_1-4_0/*/receipts/*"]
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
    while not list(tmp_path.glob(point)):
        assert process.poll() is None, "the run came to its end before it was killed"
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "report.json").exists()
    assert run(tmp_path).exit_code == 0
    assert digests(tmp_path) == digests(finished)


def test_a_technique_that_is_off_has_no_system_and_no_part_in_the_combination(finished: Path, tmp_path: Path) -> None:
    off = "techniques={selection: false, fine_tuning: false, filtering: false}"
    assert run(tmp_path, "runner=inprocess", "in_domain.sizes=[4]", off).exit_code == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert {row["system"] for row in report["metrics"]} == {"in_domain", "raw", "rescored", "combined"}
    rows = {(row["system"], row["metric"]): row["value"] for row in report["metrics"] if row["seed"] is None}
    assert rows["combined", "perplexity"] == rows["rescored", "perplexity"]
    whole = json.loads((finished / "report.json").read_text())
    kept = {
        (row["system"], row["metric"]): row["value"]
        for row in whole["metrics"]
        if row["seed"] is None and row["test_set"] == "1/4"
    }
    assert rows["raw", "perplexity"] == kept["raw", "perplexity"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["in_domain.domains=[cooking]"], "['cooking']; expected some of both languages"),
        (["in_domain.sizes=[]"], "in_domain.sizes: []"),
        (["in_domain.dev=0.6", "in_domain.test=0.5"], "expected a sum below 1"),
        (["pairs.domains=[light]"], "expected others"),
        (["pairs.files={places: /nowhere.tsv}"], "/nowhere.tsv"),
        (["translator.target_lang=de"], "expected en to hi"),
        (["selection.radius=0.1"], "radius and share: expected one"),
        (["tuning.keeps=[0.0]"], "tuning.keeps[0]: 0.0 is not right"),
        (["tuning.weights=[]"], "tuning.weights: nothing is given; expected at least 1"),
        (["ngrams.prune=[2, 1]"], "ngrams: prune is [2, 1]; expected at most 4 counts"),
        (["selection.ngrams.prune=[3]"], "selection.ngrams: prune is [3]"),
        (["translator.model.heads=3"], "translator.model: dim is 16 and heads is 3"),
        (["channel.candidates=0"], "channel.candidates: 0 is not right"),
        (["translator.steps=5"], "translator: epochs and steps: expected one of them"),
        (["translation.compute_type=foo"], "translation.compute_type: 'foo' is not right"),
        ([f"translator.checkpoint={__file__}"], "test_bootstrap_lm.py"),
    ],
)
def test_mistakes_are_reported_before_any_work(tmp_path: Path, overrides: list[str], message: str) -> None:
    result = run(tmp_path / "out", "runner=inprocess", *overrides)
    assert result.exit_code == 2, result.stdout
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not list((tmp_path / "out").glob("*/*/seal.json"))


def test_the_users_texts_are_used_and_references_are_held_out(finished: Path, tmp_path: Path) -> None:
    def rows(name: str, *columns: str) -> list[list[str]]:
        tables = [pq.read_table(path) for path in sorted(finished.glob(f"{name}/*/data/*.parquet"))]
        return [[row[column] for column in columns] for table in tables for row in table.to_pylist()]

    def write(name: str, given: list[list[str]]) -> str:
        (tmp_path / name).write_text("".join("\t".join(row) + "\n" for row in given))
        return str(tmp_path / name)

    references = [[text, some[0]] for text, some in rows("references", "text", "references")]
    pairs = write("pairs.tsv", rows("pairs", "source", "target")[:400] + references[:3])
    own = (
        f"in_domain.files={{target: {{places: {write('hindi.txt', rows('in_domain', 'text'))}}}, "
        f"source: {{places: {write('english.txt', rows('in_domain_source', 'text'))}, lang: en}}, "
        f"references: {{places: {write('test.tsv', references)}, near: null}}}}"
    )
    less = [
        "techniques={selection: false, fine_tuning: false}",
        "in_domain.sizes=[1]",
        f"pairs={{files: {{places: {pairs}}}}}",
    ]
    result = run(tmp_path / "out", "runner=inprocess", own, *less)
    assert result.exit_code == 0, result.stderr
    (seal,) = (tmp_path / "out" / "pairs").glob("*/seal.json")
    assert json.loads(seal.read_text())["reasons"]["kept_apart: a reference"] >= 1
    result = run(tmp_path / "out", "runner=inprocess", own, *less, "in_domain.sizes=[1, 1000]")
    assert result.exit_code == 2
    assert "in_domain.sizes: 1/1000 of the in-domain text is" in result.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "catalogue: no such file; expected lines of a name, a tab and its translation"),
        ("lamp\tबत्ती\n\nfan\n", "catalogue, line 3: expected a name, a tab and its translation"),
        ("lamp\tबत्ती\rfan\n", "catalogue, line 2: expected a name"),
        ("\xff".encode("latin-1"), "catalogue: not UTF-8"),
    ],
)
def test_an_unreadable_catalogue_is_reported(tmp_path: Path, content: str | bytes | None, message: str) -> None:
    place = tmp_path / "catalogue"
    if content is None:
        place.mkdir()
    else:
        place.write_bytes(content.encode() if isinstance(content, str) else content)
    (tmp_path / "a.txt").write_text("बत्ती जलाओ\n")
    (tmp_path / "a.tsv").write_text("turn it on\tबत्ती जलाओ\n")
    texts, pairs = (f"{{places: {tmp_path / name}" for name in ("a.txt", "a.tsv"))
    own = (
        f"in_domain.files={{target: {texts}}}, source: {texts}, lang: en}}, references: {pairs}}}, catalogue: {place}}}"
    )
    result = run(tmp_path / "out", "runner=inprocess", own)
    assert result.exit_code == 2, result.stdout
    assert message in result.stderr


def test_a_radius_that_keeps_nothing_is_reported(tmp_path: Path) -> None:
    result = run(tmp_path, "runner=inprocess", "selection={method: moore_lewis, radius: -50, share: null}")
    assert result.exit_code == 2
    assert "-50" in result.stderr


def test_lines_are_scored_and_translated_by_the_models_of_the_run(finished: Path, tmp_path: Path) -> None:
    (folder,) = (finished / "judged_1-1_0").iterdir()
    rows = [row for table in open_sealed(str(folder)).tables() for row in table.to_pylist()]
    for system in ("combined", "in_domain"):
        found = TextScorer(str(finished), system=system).score(f"{row['text'].upper()}!" for row in rows)
        assert [one.logprob for one in found] == [row[f"{system}_logprob"] for row in rows]
    lines = tmp_path / "texts.txt"
    lines.write_text(f"{rows[0]['text']}\n\n")
    scored = call("score", finished, lines, "--system", "combined").stdout.splitlines()
    assert scored[0].startswith(f"{rows[0]['combined_logprob']:.4f}\t")
    assert scored[1] == "nan\tnan\t0\t"

    report = json.loads((finished / "report.json").read_text())
    made_of = {node["name"].split(" ")[0]: node["inputs"] for node in report["lineage"]}
    for system, training in (("raw", "translator"), ("fine_tuned", "fine_tuned_translator")):
        ref, _ = find_translator(str(finished), system)
        names = [name for name in made_of[f"tested_{system}_1-1_0"] if report["digests"][name] == ref.digest]
        assert [name.split(" ")[0] for name in names] == [training]
    lines.write_text("turn on the light\n\nset a timer for 5 minutes\n")
    made = call("translate", finished, lines)
    assert made.exit_code == 0
    assert [bool(line) for line in made.stdout.splitlines()] == [True, False, True]
    standing = "the best of 3 systems on average over the test sets"
    assert re.search(rf"{standing} \(chrF .*\): .*, from en into hi", made.stderr)
    lines.write_bytes(b"turn on the light\n\xff\nset a timer for 5 minutes\n")
    for verb in ("translate", "score"):
        made = call(verb, finished, lines)
        assert made.exit_code == 1
        assert [bool(line) for line in made.stdout.splitlines()] == [True, False, True]
        assert f"{lines}:2: not UTF-8" in made.stderr
        rows = [json.loads(line) for line in call(verb, finished, lines, "-f", "jsonl").stdout.splitlines()]
        assert [row.get("problem") for row in rows] == [None, "not UTF-8", None]
