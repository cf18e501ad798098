"""Settings saved with an output are data, of whoever wrote them: they run nothing and reveal nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gristmill.pipelines.config import load, load_saved, save
from gristmill.shards import checked, names
from gristmill.shards.errors import Damaged, UserError

MARK = "from pathlib import Path\nPath({!r}).touch()\n"
FILTER = """
from gristmill.actors.records import filter_records


@filter_records
def brief(text: str, *, most: int = 4) -> str | None:
    return None
"""


def filtered(actor: str) -> dict[str, Any]:
    """Return the settings of a recipe with a filter."""
    return {"recipe": "rerank", "corpus": {"kind": "assistant", "records": 500, "filters": [{"actor": actor}]}}


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An output beside which there is code that leaves a mark when it is imported; it is the current folder too."""
    monkeypatch.setattr(names, "_folders", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "strange.py").write_text(MARK.format(str(tmp_path / "imported")) + FILTER)
    (tmp_path / "strange_recipe.py").write_text(MARK.format(str(tmp_path / "imported")) + "class Config: ...\n")
    (tmp_path / "out").mkdir()
    yield tmp_path / "out"
    for name in ("strange", "strange_recipe"):
        sys.modules.pop(name, None)


def stored(out: Path, **values: Any) -> None:
    saved = {"out": str(out), "beside": str(out.parent), **values}
    (out / "config.json").write_bytes(checked.encode("settings", saved))


CHOSEN = {
    "recipe": {"recipe": "strange_recipe"},
    "installed module": {"recipe": "xmlrpc.server"},
    "filter": filtered("strange:brief"),
    "filter of an installed module": filtered("xmlrpc.server:x"),
}


@pytest.mark.parametrize("values", CHOSEN.values(), ids=CHOSEN)
def test_an_output_chooses_no_module(out: Path, values: dict[str, Any]) -> None:
    stored(out, **values)
    with pytest.raises(
        UserError, match=r"no output may choose what is run; expected `gristmill requeue .* --config FILE`"
    ):
        load_saved(str(out))
    assert not (out.parent / "imported").exists()
    assert "xmlrpc.server" not in sys.modules


def test_the_user_may_name_the_modules_of_an_output(out: Path) -> None:
    filters = [{"actor": "strange:brief"}]
    stored(out, **CHOSEN["filter"])
    (out.parent / "other.yaml").write_text("recipe: rerank\n")
    with pytest.raises(UserError, match="no output may choose what is run"):
        load_saved(str(out), [], "other.yaml")
    (out.parent / "mine.yaml").write_text(json.dumps(CHOSEN["filter"]))
    for given in (
        load_saved(str(out), [], "mine.yaml"),
        load_saved(str(out), [f"corpus.filters={json.dumps(filters)}", "corpus.filters[0].settings.most=3"]),
    ):
        assert given.config.corpus.filters[0].actor == "strange:brief"
    assert given.config.corpus.filters[0].settings == {"most": 3}
    assert (out.parent / "imported").exists()


def test_references_in_saved_settings_are_not_followed(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAVED_DATA", "/data/of/the/user")
    literal = "${oc.env:SAVED_DATA}/${recipe}/\\${x}"
    stored(out, recipe="tests.pipelines.tiny", text=literal)
    loaded = load_saved(str(out), ["recipe=tests.pipelines.tiny"])
    assert loaded.config.text == literal
    assert save(loaded)
    assert load_saved(str(out), ["recipe=tests.pipelines.tiny"]).config.text == literal
    assert b"of/the/user" not in (out / "config.json").read_bytes()
    loaded = load_saved(str(out), ["recipe=tests.pipelines.tiny", "text=${oc.env:SAVED_DATA}"])  # the user's own words
    assert loaded.config.text == "/data/of/the/user"


def test_what_is_saved_is_resolved(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAVED_DATA", "/data/of/the/user")
    (out.parent / "a.yaml").write_text(f"recipe: tests.pipelines.tiny\nout: {out}\ntext: '${{oc.env:SAVED_DATA}}/x'\n")
    save(load("a.yaml"))
    monkeypatch.delenv("SAVED_DATA")
    assert json.loads((out / "config.json").read_text())["text"] == "/data/of/the/user/x"
    assert load_saved(str(out)).config.text == "/data/of/the/user/x"


DAMAGED = {
    "cut": b'{"recipe": "rera',
    "empty": b"",
    "list": b"[]",
    "bytes": b"\xff\xfe\x00",
    "number": b'{"recipe": "rerank", "seed": ' + b"9" * 5000 + b"}",
    "deep": b'{"recipe": ' + b"[" * 100000,
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_damaged_settings_are_one_sentence_and_written_again(out: Path, data: bytes) -> None:
    (out / "config.json").write_bytes(data)
    with pytest.raises(Damaged, match=r"config\.json: its contents do not match their checksum"):
        load_saved(str(out))
    (out.parent / "a.yaml").write_text(f"recipe: tests.pipelines.tiny\nout: {out}\n")
    assert save(load("a.yaml"))
    assert json.loads((out / "config.json").read_text())["recipe"] == "tests.pipelines.tiny"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"text": "a\x1b[2J"}, r"text: holds the control character \\u001b"),
        ({"seed": 1 << 64}, "seed: the number has 65 bits"),
        ({"text": "s3://me:pass@bucket"}, "text: the URL contains a password"),
        ({"shape": json.loads("[" * 40 + "]" * 40)}, "values are nested more than 32 deep"),
        ({"recipe": ["rerank"]}, "`recipe` is missing"),
    ],
)
def test_saved_settings_are_checked_like_others(out: Path, values: dict[str, Any], message: str) -> None:
    stored(out, **{"recipe": "tests.pipelines.tiny", **values})
    with pytest.raises(UserError, match=message):
        load_saved(str(out), ["runner=inprocess"])
