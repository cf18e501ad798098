"""An export that is run again: a finished one is compared, a damaged one mended, and a killed one resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gristmill.pipelines.command.export import BOOKS, export_set
from gristmill.shards.audit import audit_below
from gristmill.shards.dataset import SealedSet
from tests.pipelines.command.test_export import FORMATS, HERE, LAST, ROWS, SHARDS, corpus, cut, tree


@pytest.fixture
def speech(tmp_path: Path) -> SealedSet:
    return corpus(tmp_path / "set")


@pytest.mark.parametrize("form", FORMATS)
def test_a_second_export_does_nothing_and_the_audit_passes(form: str, speech: SealedSet, tmp_path: Path) -> None:
    dest = tmp_path / form
    first = export_set(speech.url, form, str(dest), settings=HERE)
    assert (first.fresh, first.records, first.left_out) == (True, SHARDS * ROWS, {})
    assert first.manifest == str(dest / LAST[form])
    before = {path: path.stat().st_mtime_ns for path in dest.rglob("*")}
    assert not export_set(speech.url, form, str(dest), settings=HERE).fresh
    assert {path: path.stat().st_mtime_ns for path in dest.rglob("*")} == before
    (audit,) = audit_below(str(dest / BOOKS))
    assert (audit.gaps, audit.records_out) == ([], SHARDS * ROWS)
    dest.rename(tmp_path / "moved")
    # Lhotse's files name the places of their audio as a whole, so a moved export has new ones.
    moved = export_set(speech.url, form, str(tmp_path / "moved"), settings=HERE)
    assert moved.fresh == (form == "lhotse")
    assert not export_set(speech.url, form, str(tmp_path / "moved"), settings=HERE).fresh


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("form", "damage"), [("nemo", Path.unlink), ("webdataset", cut), *((form, _flip) for form in FORMATS)]
)
def test_what_is_damaged_of_a_finished_export_is_written_again(
    form: str, damage: Callable[[Path], None], speech: SealedSet, tmp_path: Path
) -> None:
    dest = tmp_path / form
    export_set(speech.url, form, str(dest), settings=HERE)
    whole = tree(dest)
    victims = {dest / sorted(set(whole) - {LAST[form]})[0], dest / LAST[form]}
    for path in victims:
        damage(path)
    written = [dest / name for name in whole if name.endswith((".flac", ".tar", ".parquet"))]
    before = {path: path.stat().st_mtime_ns for path in written if path.exists()}
    again = export_set(speech.url, form, str(dest), settings=HERE)
    assert again.fresh
    assert again.mended[0].url in map(str, victims)
    assert tree(dest) == whole
    kept = [path for path, time in before.items() if path.stat().st_mtime_ns == time]
    assert len(kept) == len(written) * (SHARDS - 1) // SHARDS, "just the damaged shard is written again"
    (audit,) = audit_below(str(dest / BOOKS))
    assert audit.gaps == []
    last = export_set(speech.url, form, str(dest), settings=HERE)
    assert (last.fresh, last.mended) == (False, [])


@pytest.mark.parametrize("inner", ["*/*/receipts/*.json", "*/*/seal.json", "*/*/data/*.parquet", "export.json"])
def test_damaged_books_of_an_export_are_made_again(inner: str, speech: SealedSet, tmp_path: Path) -> None:
    dest = tmp_path / "nemo"
    export_set(speech.url, "nemo", str(dest), settings=HERE)
    whole = tree(dest)
    cut(next((dest / BOOKS).glob(inner)))
    export_set(speech.url, "nemo", str(dest), settings=HERE)
    assert tree(dest) == whole
    (audit,) = audit_below(str(dest / BOOKS))
    assert audit.gaps == []
    assert not export_set(speech.url, "nemo", str(dest), settings=HERE).fresh


DRIVER = """
import os, signal, sys
from gristmill.pipelines.command import export
from gristmill.pipelines.progress import RunProgress
from gristmill.shards import store
source, form, dest, point = sys.argv[1:]
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
class Killer(RunProgress):
    advance = die
if point == "manifest":
    store.write_chunks = die
export.export_set(source, form, dest, settings=["runner=inprocess"], progress=Killer() if point == "shard" else None)
"""


@pytest.mark.parametrize(("form", "point"), [("lhotse", "shard"), ("webdataset", "shard"), ("huggingface", "manifest")])
def test_a_killed_export_resumes_to_the_same_bytes(form: str, point: str, speech: SealedSet, tmp_path: Path) -> None:
    whole, dest = tmp_path / "whole", tmp_path / "dest"
    export_set(speech.url, form, str(whole), settings=HERE)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", DRIVER, speech.url, form, str(dest), point]
    killed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (dest / LAST[form]).exists(), "without its manifest it is no finished export"
    kept = {path: path.stat().st_mtime_ns for path in dest.glob(f"{BOOKS}/*/*/receipts/*")}
    assert len(kept) == (1 if point == "shard" else SHARDS)
    assert export_set(speech.url, form, str(dest), settings=HERE).fresh
    assert tree(dest) == tree(whole)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "a committed shard was written again"
