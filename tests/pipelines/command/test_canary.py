"""A secret of the environment is found in no file, log or error, however a config, a record or an actor asks for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from gristmill.shards import checked, names
from tests.pipelines.commands import call

CANARY = "canary/of+the=tests"
NAMES = ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "PLAIN_NAME", "DB_PASSWORD")
CODE = '''
"""A recipe whose actor, steps and listing tell the secret in their errors, and whose records ask for it."""
import os
import sys

import pyarrow as pa

from gristmill.actors.records import map_records
from gristmill.pipelines.report.report import Report
from gristmill.shards.errors import RejectRecord, UserError
from gristmill.shards.settings import Settings
from gristmill.shards.step import Step

SECRET = os.environ["HF_TOKEN"]


class Config(Settings):
    text: str = ""
    fails: str = ""


@map_records(adds=[pa.field("said", pa.string())])
def said(text):
    if "broken" in text:
        raise ValueError(f"cannot log in with {SECRET} at s3://me:{SECRET}@host/x")
    if "turned down" in text:
        raise RejectRecord(f"no access with {SECRET}")
    return {"said": text}


def run(config, run):
    if config.fails == "user":
        raise UserError(f"cannot log in with {SECRET}")
    if config.fails == "bug":
        raise RuntimeError(f"cannot log in with {SECRET}")
    rows = [{"id": f"n/{n}", "text": text} for n, text in enumerate(
        ["fine", "broken", "turned down", "${oc.env:HF_TOKEN}", "$HF_TOKEN"])]
    made = run.step(Step("said", (said.stage(),), run.table("texts", pa.Table.from_pylist(rows)), max_quarantine=0.5))
    return Report(title="Canary", recipe={"name": "canary"}, summary=f"{made.records} records.", digests={})
'''


def told_by(*words: str) -> tuple[int, str]:
    """Call the command; return the exit code and all it writes."""
    done = call(*words)
    return done.exit_code, done.stdout + done.stderr


def told_apart(place: Path, *words: str, **environment: str) -> tuple[int, str]:
    """Call the command in a process of its own."""
    line = [sys.executable, "-P", "-m", "gristmill", *words]
    done = subprocess.run(line, cwd=place, env=os.environ | environment, capture_output=True, text=True, timeout=280)
    return done.returncode, done.stdout + done.stderr


def holders(place: Path) -> list[str]:
    """Return the files below a folder that hold the canary, in their names or contents."""
    forms = [form.encode() for form in (CANARY, quote(CANARY, safe=""), json.dumps(CANARY)[1:-1])]
    files = [path for path in place.rglob("*") if path.is_file()]
    assert files
    return [str(path) for path in files if any(form in path.read_bytes() + str(path).encode() for form in forms)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a recipe and its code; the canary is in the environment."""
    (tmp_path / "canary.py").write_text(CODE)
    (tmp_path / "canary.yaml").write_text("recipe: canary\nout: out\nrunner: inprocess\n")
    monkeypatch.setattr(names, "_folders", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        monkeypatch.setenv(name, CANARY)
    yield tmp_path
    sys.modules.pop("canary", None)


def test_a_run_its_report_and_what_shows_it_hold_no_secret(place: Path) -> None:
    code, told = told_by("run", "canary.yaml")
    assert code == 0, told
    for words in (
        ["inspect", "out"],
        ["inspect", "out", "--quarantine"],
        ["inspect", "out", "--rejects"],
        ["status", "out"],
        ["audit", "out"],
        ["requeue", "out", "--config", "canary.yaml"],
    ):
        code, more = told_by(*words)
        assert code == 0, more
        told += more
    assert "cannot log in with $" in told  # which of the variables with this value is named, is open
    assert "no access with $" in told
    assert "${oc.env:HF_TOKEN}" in told  # the record, as it is
    assert CANARY not in told
    assert holders(place) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_config_takes_no_secret(place: Path, name: str) -> None:
    tries = [
        [f"text=${{oc.env:{name}}}"],
        [f"text=x-${{oc.env:ABSENT,${{oc.env:{name}}}}}"],
        [f"seed=${{oc.env:{name}}}"],
        [f"out=out/${{oc.env:{name}}}"],
        [f"{name}=${{oc.env:{name}}}"],
    ]
    if name == "HF_TOKEN":
        tries += [[f"text={CANARY}"], [f"out=out/{CANARY}"], [f"seed={CANARY}"], [CANARY], [f"text=s3://me:{CANARY}@h"]]
    for overrides in tries:
        code, told = told_by("run", "canary.yaml", *overrides)
        assert code == 2, told
        assert told.startswith("gristmill: ")
        assert CANARY not in told
        assert "Traceback" not in told
    assert not (place / "out").exists()
    assert holders(place) == []


def test_somebody_elses_output_takes_no_secret(place: Path) -> None:
    told_by("run", "canary.yaml", "-q")
    saved = checked.decode("settings", (place / "out/config.json").read_bytes(), "config.json")
    saved |= {"text": "${oc.env:HF_TOKEN}", "price": {"cpu_hour": "${oc.env:PLAIN_NAME}"}}
    (place / "out/config.json").write_bytes(checked.encode("settings", saved))
    code, told = told_by("requeue", "out", "--config", "canary.yaml")
    assert code == 2
    assert "price.cpu_hour: '${oc.env:PLAIN_NAME}' is not right" in told
    code, more = told_by("requeue", "out", "price.cpu_hour=0", "--config", "canary.yaml")
    assert code == 0, more
    assert CANARY not in told + more
    assert holders(place) == []


def test_errors_and_tracebacks_hold_no_secret(place: Path) -> None:
    code, told = told_apart(place, "run", "canary.yaml", "fails=user")
    assert (code, told.count("\n")) == (2, 1)
    code, more = told_apart(place, "run", "canary.yaml", "fails=bug")
    assert code == 1
    assert "RuntimeError: cannot log in with $" in more
    assert CANARY not in told + more
    assert holders(place) == []


@pytest.mark.slow
def test_ray_and_its_logs_hold_no_secret(place: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    pytest.importorskip("ray")
    session = tmp_path_factory.getbasetemp().parent / f"r{os.getpid()}"  # short: sockets lie in it
    session.mkdir()
    code, told = told_apart(place, "run", "canary.yaml", "runner=ray", "workers=2", RAY_TMPDIR=str(session))
    assert code == 0, told
    assert CANARY not in told
    assert holders(place) == []
    assert holders(session) == []
