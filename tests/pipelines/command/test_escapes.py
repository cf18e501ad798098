"""What a terminal would obey, in names and records of whoever wrote them, is shown, not obeyed."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.pipelines.config import load
from gristmill.pipelines.progress import LogProgress
from gristmill.shards import store
from gristmill.shards.dataset import seal_tables
from gristmill.shards.errors import GristmillError, UserError

EVIL = "a\x1b[2J\x1b]0;owned\x07\nb\x9b31m\u202e[/red]"
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202e]")


@pytest.fixture
def out(tmp_path: Path) -> str:
    """An output with a set whose name, columns and values have control characters."""
    url = str(tmp_path / "out")
    rows = [{"id": "x/1", EVIL: EVIL, "list": [EVIL], "struct": {"k": EVIL}, "text": "नमस्ते क्‍ष"}]
    seal_tables(store.join(url, EVIL.replace("/", ""), "0" * 16), EVIL, [pa.Table.from_pylist(rows)])
    return url


@pytest.mark.parametrize("words", [["inspect"], ["status"], ["audit"], ["inspect", "--where", f"{EVIL}={EVIL}"]])
def test_commands_show_control_characters(gristmill, out: str, words: list[str]) -> None:
    result = gristmill(words[0], out, *words[1:])
    assert result.exit_code == 0
    assert "\\u001b[2J" in result.stdout
    assert not OBEYED.search(result.stdout + result.stderr)
    if words[0] == "audit":
        assert [json.loads(line)["name"] for line in result.stdout.splitlines()] == [EVIL]
    if words[0] == "inspect":
        assert "नमस्ते क्‍ष" in result.stdout
        assert len(result.stdout.splitlines()) == 7


@pytest.mark.parametrize(
    "words",
    [
        ["status", EVIL],
        ["inspect", f"/x/{EVIL}"],
        ["audit", f"s3://{EVIL}"],
        ["requeue", EVIL],
        ["run", EVIL],
        ["run", "distill", f"out={EVIL}"],
        ["run", "distill", f"noise.folder=/x/{EVIL}"],
        ["run", "distill", f"{EVIL}=1"],
        ["plan", "distill", f"recipe={EVIL}"],
        ["export", EVIL, "nemo", "dest"],
        ["rerank", EVIL, EVIL, EVIL],
        ["doctor", EVIL],
        ["manifest", "slurm", f"name={EVIL}"],
    ],
)
def test_errors_are_one_line_without_control_characters(gristmill, words: list[str]) -> None:
    result = gristmill(*words)
    assert result.exit_code == 2
    assert not OBEYED.search(result.stdout + result.stderr)
    assert len(result.stderr.splitlines()) == 1


def test_progress_shows_control_characters() -> None:
    stream = io.StringIO()
    LogProgress(stream).working(EVIL, "listing")
    assert len(stream.getvalue().splitlines()) == 1
    assert not OBEYED.search(stream.getvalue())


@pytest.mark.parametrize("name", ["a\nb", "a\x00b", "a\x1bb", "a\u2028b", "a\ud800b"])
def test_an_output_has_no_control_character_in_its_name(recipe: Path, name: str) -> None:
    for written in (f"out=/tmp/{name}", f"out={json.dumps(f'/tmp/{name}')}", f"out=s3://b/{name}"):
        with pytest.raises(UserError, match=r"control character|not valid YAML"):
            load(str(recipe), [written])
    with pytest.raises(UserError, match="control character"):
        store.absolute(f"/tmp/{name}")


@pytest.mark.parametrize("part", ["/etc/passwd", "../x", "data/../../x"])
def test_names_in_stored_files_lead_nowhere_else(part: str) -> None:
    for url in ("/out/set", "s3://b/set"):
        with pytest.raises(GristmillError, match="which is not below it"):
            store.join(url, part)
    with pytest.raises(GristmillError, match="which is not below it"):
        store.join("s3://b/set", "x::http://127.0.0.1/a")
    assert store.filesystem(store.join("/out/set", "x::http:"))[1] == "/out/set/x::http:"
