from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.pipelines.ledger import read_ledger
from gristmill.shards import processor
from gristmill.shards.artifact import put_artifact
from gristmill.shards.dataset import seal_tables

ROOT = Path(__file__).resolve().parents[3]


def files(out: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p.relative_to(out)): (p.stat().st_mtime_ns, p.read_bytes()) for p in out.rglob("*") if p.is_file()}


def command(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    words = [sys.executable, "-m", "gristmill", *map(str, arguments)]
    return subprocess.Popen(words, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_help_imports_nothing_heavy() -> None:
    heavy = ("torch", "ray", "pyarrow", "scipy")
    code = f"import sys\nimport gristmill.pipelines.command.cli\nprint([m for m in {heavy} if m in sys.modules])"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert made.stdout.strip() == "[]"


def test_a_transcription_begins_without_what_it_does_not_use() -> None:
    heavy = ("ray", "pandas", "scipy", "numba", "langcodes", "gristmill.pipelines.report.html")
    heavy += ("gristmill.pipelines.command.launch", "gristmill.actors.training.loop")
    code = "import sys\nimport pyarrow as pa\nfrom gristmill.shards import process\n"
    code += "import gristmill.pipelines.command.transcribe, gristmill.pipelines.speech.known_words\n"
    code += "process.leave_out_pandas()\npa.table({'id': ['a']})\n"
    code += f"print([m for m in {heavy} if m in sys.modules])\n"
    code += "print(pa.table({'id': ['a']}).to_pandas().shape)"  # who needs pandas has it
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert made.stdout.split("\n")[:2] == ["[]", "(1, 1)"]


def test_help_names_every_command(gristmill) -> None:
    shown = gristmill("--help").stdout
    assert all(name in shown for name in ("run", "plan", "status", "audit", "inspect", "requeue", "doctor"))


def test_a_run_writes_its_report_and_prints_the_path(gristmill, recipe, tmp_path) -> None:
    result = gristmill("run", recipe)
    assert result.exit_code == 0
    assert f"report: {tmp_path}/out/report.html" in result.stdout
    assert "upper: sealed, 18 records, 1 rejected, 1 quarantined" in result.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_bytes())
    assert report["plan"]["actual"]["upper"]["seconds"] >= 0
    assert report["run"] == {"seed": 0, "seeds": [0], "runner": "inprocess"}
    assert (tmp_path / "out" / "report.html").stat().st_size > 1000


def test_a_finished_run_writes_nothing_and_reports_it(gristmill, recipe, tmp_path) -> None:
    gristmill("run", recipe)
    before = files(tmp_path / "out")
    result = gristmill("run", recipe, "workers=3")
    assert "nothing to do: everything was finished by an earlier run" in result.stdout
    assert files(tmp_path / "out") == before


def test_a_change_redoes_only_dependent_work(gristmill, recipe, tmp_path) -> None:
    gristmill("run", recipe)
    assert "of the last call only" not in (tmp_path / "out" / "report.html").read_text()
    result = gristmill("run", recipe, "shape.width=2")
    assert "made 3 sets, artifacts and models" in result.stdout
    assert "1 kept from before" in result.stdout
    report = json.loads((tmp_path / "out" / "report.json").read_bytes())
    assert report["plan"]["results"] == {"made": 3, "of": 4}
    assert "of the last call only, which made 3 of 4 results" in (tmp_path / "out" / "report.html").read_text()
    assert "0 kept" not in gristmill("run", recipe, "records=20").stdout


def test_audit_prints_a_line_per_set_and_fails_on_a_gap(gristmill, recipe, tmp_path) -> None:
    gristmill("run", recipe)
    result = gristmill("audit", tmp_path / "out")
    assert result.exit_code == 0
    found = {line["name"]: line for line in map(json.loads, result.stdout.splitlines())}
    keys = ("records_in", "records_out", "rejected", "quarantined", "shards")
    assert [found["upper"][key] for key in keys] == [20, 18, 1, 1, 5]
    next((tmp_path / "out" / "upper").glob("*/data/000000-*")).unlink()
    result = gristmill("audit", tmp_path / "out")
    assert result.exit_code == 1
    assert "gap: upper: data/000000-" in result.stderr


def test_an_artifact_that_was_edited_is_a_gap(gristmill, recipe, tmp_path) -> None:
    gristmill("run", recipe)
    next((tmp_path / "out" / "count").glob("*/n-*.txt")).write_text("7")
    assert gristmill("audit", tmp_path / "out").exit_code == 1


def test_requeue_reprocesses_quarantined_records(gristmill, recipe, tmp_path, monkeypatch) -> None:
    gristmill("run", recipe)
    monkeypatch.setenv("TINY_MENDED", "1")
    assert gristmill("requeue", tmp_path / "out").exit_code == 0
    assert "nothing to do" in gristmill("run", recipe).stdout
    lines = [json.loads(line) for line in gristmill("audit", tmp_path / "out").stdout.splitlines()]
    upper = next(line for line in lines if line["name"] == "upper")
    assert (upper["records_out"], upper["quarantined"], upper["gaps"]) == (19, 0, [])
    assert "nothing to do" in gristmill("requeue", tmp_path / "out").stdout


def test_too_many_broken_records_exit_one_with_the_cause(gristmill, recipe, tmp_path) -> None:
    result = gristmill("run", recipe, "broken=5")
    assert result.exit_code == 1
    assert "ValueError: this record breaks" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("gristmill: step upper: ")
    assert "Traceback" not in result.stderr
    status = gristmill("status", tmp_path / "out").stdout
    assert "under way" in status


def test_status_without_the_run(gristmill, recipe, tmp_path) -> None:
    gristmill("run", recipe)
    shown = gristmill("status", tmp_path / "out").stdout
    row = next(line.split() for line in shown.splitlines() if line.startswith("upper"))
    assert row[2:7] == ["sealed", "5/5", "18", "1", "1"]
    assert "all steps are finished" in shown


def test_inspect_shows_records(gristmill, recipe, tmp_path) -> None:
    gristmill("run", recipe)
    shown = gristmill("inspect", tmp_path / "out", "--where", "id=t/00007", "--n", "1").stdout
    assert "TEXT 7" in shown
    assert "TEXT 8" not in shown
    assert "dropped" in gristmill("inspect", tmp_path / "out", "--rejects").stdout
    assert "this record breaks" in gristmill("inspect", tmp_path / "out", "--quarantine").stdout
    one = next((tmp_path / "out" / "copies").iterdir())
    assert gristmill("inspect", one, "-n", "3").stdout.count("parent_id") == 3
    result = gristmill("inspect", tmp_path / "out", "--where", "colour=red")
    assert result.exit_code == 2
    assert "expected one of duration, id" in result.stderr


def test_inspect_of_an_artifact_shows_its_files(gristmill, tmp_path) -> None:
    put_artifact(str(tmp_path / "words" / "0f"), {"idf.json": b"{}", "notes.txt": b"x"}, {})
    for place in (tmp_path / "words" / "0f", tmp_path / "words"):
        result = gristmill("inspect", place)
        assert result.exit_code == 0
        assert "this is an artifact and has no records; its files:\n  idf.json\n  notes.txt\n" in result.stdout
    seal_tables(str(tmp_path / "one"), "one", [pa.table({"id": ["a"]})])
    assert "1 record in 1 shard\n" in gristmill("inspect", tmp_path / "one").stdout


def test_inspect_describes_audio_and_writes_it(gristmill, tmp_path) -> None:
    import io

    import numpy as np
    import pyarrow as pa
    import soundfile

    from gristmill.shards.dataset import seal_tables
    from gristmill.shards.schema import SPEECH

    sound = io.BytesIO()
    soundfile.write(sound, np.zeros(8000), 16000, format="FLAC")
    row = {"id": "../up/1", "audio": {"bytes": sound.getvalue(), "path": None}, "sampling_rate": 16000}
    seal_tables(str(tmp_path / "s"), "s", [pa.Table.from_pylist([row], schema=SPEECH)])
    result = gristmill("inspect", tmp_path / "s", "--save-audio", tmp_path / "sounds")
    assert "FLAC 0.50 s, 16000 Hz, mono" in result.stdout
    refused = gristmill("inspect", tmp_path / "s", "--save-audio", tmp_path / "s" / "seal.json")
    assert (refused.exit_code, "seal.json is a file; expected a folder" in refused.stderr) == (2, True)
    (written,) = (tmp_path / "sounds").iterdir()
    assert soundfile.info(str(written)).frames == 8000


def test_doctor_checks_one_by_one(gristmill, tmp_path) -> None:
    lines = gristmill("doctor", tmp_path / "deep" / "out").stdout.splitlines()
    assert any(line.startswith("OK    extras: s3") for line in lines)
    assert all(line.startswith(("OK    ", "FAIL  ")) for line in lines)
    assert any("put if absent holds" in line for line in lines)
    assert not (tmp_path / "deep").exists()
    (tmp_path / "file").write_text("")
    result = gristmill("doctor", tmp_path / "file" / "out")
    assert result.exit_code == 1
    assert "FAIL  output:" in result.stdout


BAD = {
    "config": (["run", "absent.yaml"], "absent.yaml: there is no such recipe file"),
    "key": (["run", "{recipe}", "recrds=1"], "did you mean 'records'?"),
    "missing path": (["run", "{recipe}", "text=/no/such/file"], "text: /no/such/file is not there"),
    "output is a file": (["run", "{recipe}", "out={recipe}/x"], "is a file; expected a folder"),
    "recipe without a name": (["run", ""], "CONFIG: nothing is given; expected a YAML file"),
    "output in a chain": (["run", "{recipe}", "out={recipe}::s3://b/x"], "holds '::', with which URLs are chained"),
    "output on the web": (["run", "{recipe}", "out=http://127.0.0.1:1/x"], "nothing can be written to a web server"),
    "output in memory": (["run", "{recipe}", "out=memory://x/y"], "memory of a process is gone"),
    "output is a device": (["run", "{recipe}", "out=/dev/null"], "/dev/null is not a folder; expected a folder"),
    "output at a link to nothing": (["run", "{recipe}", "out={links}/dangling/x"], "which does not exist"),
    "output at a circle of links": (["run", "{recipe}", "out={links}/loop"], "cannot be written"),
    "output of a long name": (["run", "{recipe}", f"out={{out}}/{'x' * 300}"], "the name is too long"),
    "output of a long path": (["run", "{recipe}", f"out={{out}}/{'x/' * 2100}"], "the name is too long"),
    "recipe of a long name": (["run", "x" * 300], "there is no such recipe file"),
    "status at a circle of links": (["status", "{links}/loop"], "there is no run here"),
    "empty corpus": (["run", "{recipe}", "empty=true"], "there is nothing to seal"),
    "status of nothing": (["status", "{out}"], "there is no run here"),
    "audit of nothing": (["audit", "{out}"], "no sealed set is here or below"),
    "inspect nothing": (["inspect", "{out}"], "no sealed set is here or below"),
    "requeue nothing": (["requeue", "{out}"], "no run was started here"),
    "plan": (["plan", "{recipe}", "text=/no/such/file"], "text: /no/such/file is not there"),
}


@pytest.mark.parametrize(("words", "message"), BAD.values(), ids=BAD)
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    gristmill, recipe, tmp_path, tmp_path_factory, words, message
) -> None:
    links = tmp_path_factory.mktemp("links")
    (links / "dangling").symlink_to(links / "nowhere")
    (links / "loop").symlink_to(links / "loop")
    result = gristmill(*(word.format(recipe=recipe, out=tmp_path / "out", links=links) for word in words))
    assert result.exit_code == 2
    lines = [line for line in result.stderr.splitlines() if line.startswith("gristmill: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.yaml"]


def test_an_error_of_a_file_is_a_sentence(gristmill, tmp_path, monkeypatch) -> None:
    """A bad sector below a seal, say: the device fails, and not the program."""

    def fails(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(tmp_path / "seal.json"))

    monkeypatch.setattr("gristmill.pipelines.command.inspect.show_records", fails)
    result = gristmill("inspect", tmp_path)
    assert result.exit_code == 2
    assert result.stderr == f"gristmill: {tmp_path}/seal.json: input/output error\n"


@pytest.fixture
def storage_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Direct S3 requests of this process to an endpoint; no cached client of this or another test answers."""
    s3fs = pytest.importorskip("s3fs")

    def direct(url: str) -> None:
        for key, value in (("ENDPOINT_URL", url), ("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b")):
            monkeypatch.setenv(f"AWS_{key}", value)
        s3fs.S3FileSystem.clear_instance_cache()

    yield direct
    s3fs.S3FileSystem.clear_instance_cache()


def test_storage_that_rejects_access_is_reported(gristmill, recipe, monkeypatch, storage_at) -> None:
    monkeypatch.setattr("gristmill.pipelines.command.launch.ANSWER_WITHIN", 10.0)
    storage_at("http://127.0.0.1:9")
    result = gristmill("run", recipe, "out=s3://refusing-bucket/x")
    assert result.exit_code == 2
    assert "cannot be reached" in result.stderr


def test_storage_that_never_answers_is_given_up(gristmill, recipe, monkeypatch, storage_at) -> None:
    monkeypatch.setattr("gristmill.pipelines.command.launch.ANSWER_WITHIN", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        storage_at(f"http://127.0.0.1:{silent.getsockname()[1]}")
        result = gristmill("run", recipe, "out=s3://silent-bucket/x")
    assert result.exit_code == 2
    assert "gave no answer within 1 s" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_resumes(gristmill, recipe, tmp_path, number) -> None:
    run = command("run", recipe, "records=60", TINY_PAUSE="0.15")
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").glob("upper/*/receipts/*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    run.send_signal(number)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130
    assert errors.splitlines()[-1].startswith("gristmill: interrupted; committed work is kept")
    assert "Traceback" not in errors
    kept = len(list((tmp_path / "out").glob("upper/*/receipts/*.json")))
    assert 0 < kept < 15
    assert f"{kept} of them kept from before" in gristmill("run", recipe, "records=60").stderr
    assert gristmill("audit", tmp_path / "out").exit_code == 0


def test_an_output_can_be_moved(gristmill, recipe, tmp_path) -> None:
    gristmill("run", recipe)
    shutil.move(tmp_path / "out", tmp_path / "moved")
    assert gristmill("audit", tmp_path / "moved").exit_code == 0
    assert "nothing to do" in gristmill("run", recipe, f"out={tmp_path}/moved").stdout


def test_damage_is_named_audited_repaired_and_made_again(gristmill, recipe: Path, tmp_path: Path) -> None:
    assert gristmill("run", str(recipe)).exit_code == 0
    before = gristmill("audit", f"{tmp_path}/out").stdout
    data = sorted((tmp_path / "out").glob("upper/*/data/*"))[1]
    data.write_bytes(data.read_bytes()[:-1])
    name = str(data.relative_to(tmp_path / "out"))

    shown = gristmill("inspect", str(tmp_path / "out" / "upper"), "--n", "100")
    assert shown.exit_code == 1
    assert f"{data}: holds {data.stat().st_size} bytes, {data.stat().st_size + 1} were committed" in shown.stderr
    assert "gristmill repair OUT" in shown.stderr
    assert gristmill("audit", f"{tmp_path}/out").exit_code == 1
    assert "upper: damaged" in gristmill("status", f"{tmp_path}/out").stdout

    done = gristmill("repair", f"{tmp_path}/out")
    assert done.exit_code == 0
    assert f"{name}: its bytes are not those that were committed" in done.stdout
    assert (tmp_path / "out" / "damaged.1" / name).exists()
    again = gristmill("run", str(recipe))
    assert again.exit_code == 0
    assert "made 1 set, artifact or model" in again.stdout
    assert gristmill("audit", f"{tmp_path}/out").stdout == before
    assert "nothing is damaged" in gristmill("repair", f"{tmp_path}/out").stdout


def test_an_audit_covers_the_files_of_the_run(gristmill, recipe: Path, tmp_path: Path) -> None:
    assert gristmill("run", str(recipe)).exit_code == 0
    (tmp_path / "out" / "config.json").write_bytes(b"{}")
    next((tmp_path / "out").glob("copies/*/seal.json")).unlink()
    found = gristmill("audit", f"{tmp_path}/out")
    assert found.exit_code == 1
    assert "config.json: its contents do not match their checksum" in found.stderr
    assert "run.json: copies was made in copies/" in found.stderr
    (tmp_path / "out" / "copies").rename(tmp_path / "copies")
    mended = gristmill("repair", f"{tmp_path}/out").stdout
    assert "(damaged settings, or of an earlier version)" in mended
    assert "moved 1 file to" in mended


def test_there_must_be_something_to_repair(gristmill, tmp_path: Path) -> None:
    refused = gristmill("repair", str(tmp_path))
    assert refused.exit_code == 2
    assert "there is no run here; expected the output of `gristmill run`" in refused.stderr


def test_a_machine_without_the_level_is_refused_by_doctor_and_run(gristmill, recipe, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(processor, "offered", lambda: "x86-64-v2")
    said = "offers x86-64-v2, and x86-64-v3 was expected"
    refused = next(line for line in gristmill("doctor", tmp_path).stdout.splitlines() if "processor:" in line)
    assert refused.startswith("FAIL  ")
    assert said in refused
    result = gristmill("run", recipe)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (tmp_path / "out").exists()


def test_the_command_begins_again_at_the_level_of_its_recipe_and_does_not_mix_two(gristmill, recipe, tmp_path) -> None:
    """What it has loaded before it knows the recipe is pinned otherwise."""
    command = [sys.executable, "-m", "gristmill", "run", str(recipe), "--quiet", "processor=x86-64-v2"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert read_ledger(str(tmp_path / "out"))["processor"] == "x86-64-v2"
    result = gristmill("run", recipe)
    assert result.exit_code == 2
    assert "was made with processor=x86-64-v2, and this run has processor=x86-64-v3" in result.stderr
