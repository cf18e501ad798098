"""The recipe of sessions from end to end, small: simulated sessions, and twenty lines of a user's own."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from gristmill.pipelines.requests.annotate import RequestAnnotator
from tests.pipelines.commands import call
from tests.pipelines.lineage import without_user
from tests.pipelines.outputs import digests, made, rows

CONFIG = str(Path(__file__).parents[3] / "configs" / "sessions.yaml")
SMALL = [
    "seeds=[0]",
    "corpus.records=240",
    "sessions.bank={meanings: 40, wordings: 4}",
    "sessions.simulation={sessions: 200, users: 40}",
    "skill_requests.generated.records=400",
]


def run(out: Path, *more: str) -> Result:
    return call("run", CONFIG, *SMALL, *(more or ("runner=inprocess",)), f"out={out}")


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("typed") / "typed.jsonl"
    rows = [
        {
            "annotation": "wake me at [time : five am]",
            "typed": "Wake me at 5am",
            "changed": [["time", "five am", "5am"]],
        },
        {"annotation": "play [title : blue river]", "typed": "play blue river!", "changed": []},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"typed={path}"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, typed: str) -> Path:
    out = tmp_path_factory.mktemp("sessions")
    result = run(out, "runner=inprocess", typed)
    assert result.exit_code == 0, result.stderr
    return out


def test_every_system_is_measured_on_later_turns(finished: Path) -> None:
    report = json.loads((finished / "report.json").read_text())
    found = [row for row in report["metrics"] if row["metric"] == "semer" and row["seed"] is None]
    assert {row["system"] for row in found} == {"base", "successes", "projected"}
    assert {row["test_set"] for row in found} == {"tail", "unheard", "head"}
    assert all(row["low"] <= row["value"] <= row["high"] for row in found)
    (exact,) = [row for row in report["metrics"] if row["metric"] == "span_exact" and row["test_set"] == "projection"]
    assert (exact["value"], exact["n"]) == (1.0, 2)
    metrics = {(row["test_set"], row["metric"]) for row in report["metrics"]}
    assert {("emitted", "precision"), ("emitted", "emission_rate"), ("rewrite", "win_loss")} <= metrics
    page = (finished / "report.html").read_text()
    for said in ("Where the turns went", "Labels from rephrases", "are drawn (settings: sessions.simulation)"):
        assert said in page


def test_labels_are_of_turns_that_failed_and_are_marked_as_projected(finished: Path) -> None:
    labels = rows(made(finished, "emitted_0"))
    failing = {" ".join(row["tokens"]) for row in rows(made(finished, "learnt_0")) if row["failed"]}
    assert labels
    assert {row["label_source"] for row in labels} == {"projected"}
    assert sum(row["text"] in failing for row in labels) > 0.6 * len(labels)
    for row in labels:
        assert all(row["tokens"][slot["start"] : slot["end"]] == slot["value"].split() for slot in row["slots"])


def test_what_is_tested_on_is_in_no_training(finished: Path) -> None:
    learnt, later = (rows(made(finished, f"{name}_0")) for name in ("learnt", "later"))
    assert not {row["id"] for row in learnt} & {row["id"] for row in later}
    assert max(row["time"] for row in learnt if row["turn"] == 0) < 1_700_000_000 + 0.7 * 200 * 30 + 30


def test_every_result_has_a_user(finished: Path, typed: str) -> None:
    assert without_user(CONFIG, [*SMALL, "runner=inprocess", typed], finished) == []


def test_requests_are_annotated_by_the_models_of_a_system(finished: Path) -> None:
    label = max(rows(made(finished, "emitted_0")), key=lambda row: (row["support"], row["text"]))
    read = {}
    for system in ("base", "projected"):
        (read[system],) = RequestAnnotator(str(finished), system=system).annotate(label["text"])
    assert (read["projected"].domain, read["projected"].intent) == (label["domain"], label["intent"])
    assert read["base"].readings != read["projected"].readings


def test_run_again_does_nothing(finished: Path, typed: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert "nothing to do" in run(finished, "runner=inprocess", typed).stdout
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_parts_are_switched_off(finished: Path, tmp_path: Path) -> None:
    off = [f"{part}=null" for part in ("projection", "rewrites", "goals", "skills", "teaching")]
    assert run(tmp_path, "runner=inprocess", *off).exit_code == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert {row["test_set"] for row in report["metrics"]} == {"tail", "unheard", "head", "kept"}
    for name in ("emitted_0", "rewrites_0", "follow_ups_0", "friction_model_0", "teaching_tested_0"):
        assert (finished / name).exists()
        assert not (tmp_path / name).exists()


@pytest.mark.slow
def test_killed_it_ends_with_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gristmill.pipelines.command.cli", "run", CONFIG, *SMALL, f"out={tmp_path}"]
    process = subprocess.Popen([*command, "runner=inprocess"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("followed_0/*/receipts/*")):
        assert process.poll() is None, "the run came to its end before it was killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert run(tmp_path).exit_code == 0
    assert digests(tmp_path) == digests(finished)


@pytest.mark.slow
def test_ray_gives_the_same_sessions(finished: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    result = run(tmp_path, "runner=ray", "workers=2")
    assert result.exit_code == 0, result.stderr
    assert digests(tmp_path) == digests(finished)


def own_turns() -> list[dict[str, Any]]:
    """Twenty lines, as a user would write them by hand: ten users are not understood, and say it otherwise."""
    turns = []
    for user in range(10):
        lamp = {"name": "lamp", "value": "hall lamp"}
        first = {"text": "put the hall lamp on", "domain": "media", "intent": "play", "slots": {}, "succeeded": False}
        again = {"text": "turn on the hall lamp", "domain": "light", "intent": "on", "slots": [lamp]}
        shared = {"conversation": f"c{user}", "user": f"u{user}"}
        turns.append({**shared, "turn": 0, "time": f"2026-03-01T10:{user:02d}:00", **first})
        turns.append({**shared, "turn": 1, "time": f"2026-03-01T10:{user:02d}:12", **again, "succeeded": True})
    return turns


def run_own(tmp_path: Path, turns: list[dict[str, Any]], *more: str) -> Result:
    path = tmp_path / "turns.jsonl"
    path.write_text("".join(json.dumps(turn) + "\n" for turn in turns))
    given = [
        f"sessions={{places: {path}, fields: {{session: conversation}}, bank: {{meanings: 60}}}}",
        "corpus.records=240",
    ]
    return call("run", CONFIG, *given, "seeds=[0]", "runner=inprocess", f"out={tmp_path / 'out'}", *more)


def test_twenty_lines_of_ones_own_give_a_rewrite_and_a_label(tmp_path: Path) -> None:
    result = run_own(tmp_path, [*own_turns(), own_turns()[3]], "skill_requests.turns=true")
    assert result.exit_code == 0, result.stderr
    found = rows(made(tmp_path / "out", "rewrites_0"))
    assert [(row["source_text"], row["target_text"]) for row in found] == [
        ("put the hall lamp on", "turn on the hall lamp")
    ]
    labels = rows(made(tmp_path / "out", "emitted_0"))
    assert [(row["text"], row["domain"], row["slots"][0]["value"]) for row in labels] == [
        ("put the hall lamp on", "light", "hall lamp")
    ]
    told = rows(made(tmp_path / "out", "labels_both_0"))
    skills = {(one["skill"], one["source"]) for row in told for one in row["labels"]}
    assert skills >= {("light", "gold"), ("media", "negative")}
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {row["test_set"] for row in report["metrics"] if row["metric"] == "semer"} == {"head"}
    page = (tmp_path / "out" / "report.html").read_text()
    assert re.search(r"repeats of a turn, which are dropped</t[hd]>\s*<td[^>]*>1</td>", page)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["one turn", "all understood", "no outcome"])
def test_sessions_that_teach_little_are_a_result(tmp_path: Path, case: str) -> None:
    turns = own_turns()
    if case == "one turn":
        turns = turns[:1]
    elif case == "all understood":
        turns = [turn | {"succeeded": True} for turn in turns]
    else:
        turns = [{key: value for key, value in turn.items() if key != "succeeded"} for turn in turns]
    result = run_own(tmp_path, turns)
    assert result.exit_code in (0, 2), result.stderr
    assert "Traceback" not in result.stderr


def test_mistakes_are_sentences(tmp_path: Path) -> None:
    for wrong, said in (
        ("sessions.places=none.jsonl", "none.jsonl: no such file"),
        ("sessions.bank.kind=slurp", "expected the URL of SLURP's recordings"),
        ("sessions.simulation.later=1.5", "sessions.simulation.later"),
        ("sessions.fields={sesion: x}", "'sesion' is no part of a record"),
    ):
        result = run(tmp_path / "out", "runner=inprocess", wrong)
        assert (result.exit_code, "Traceback" in result.stderr) == (2, False), result.stderr
        assert said in result.stderr
