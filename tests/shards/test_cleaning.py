"""Deletion behind tombstones, on disk and on object storage."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.shards import cleaning, store
from gristmill.shards.artifact import get_artifact, put_artifact
from gristmill.shards.audit import audit_below
from gristmill.shards.cleaning import begin_again, clean, comes_out_the_same, end_again, find_orphans, look, settle
from gristmill.shards.dataset import SealedSet, find_sealed, open_sealed, seal_tables
from gristmill.shards.engine import run_step
from gristmill.shards.entries import list_entries, walk_entries
from gristmill.shards.errors import Alarm, Damaged
from gristmill.shards.finding import find_below
from gristmill.shards.stage import Stage
from gristmill.shards.step import Step
from gristmill.shards.tombstone import TOMBSTONE, Cleaned, Tombstone, find_tombstone, put_tombstone
from tests.pipelines.tiny import texts, twice, upper


def nothing() -> None:
    """The lease is held."""


def corpus(root: str) -> SealedSet:
    return seal_tables(store.join(root, "in/0"), "in", [texts(4, {1: "drop"}), texts(4, None, 4)])


def of(sealed: SealedSet) -> Tombstone:
    return Tombstone(sealed.name, "set", sealed.digest, "not needed", 4, 100, store.last_name(sealed.url))


def names(url: str) -> set[str]:
    return {entry.name for entry in walk_entries(url)}


def test_a_set_keeps_its_seal_and_is_made_again_to_its_digest(root: str) -> None:
    step = Step("upper", (upper(),), corpus(root))
    made = run_step(step, root, InProcessRunner(), 0)
    copies = run_step(Step("copies", (twice(),), made), root, InProcessRunner(), 0)
    before = names(made.url)
    clean(made.url, of(made), nothing)
    assert names(made.url) == {"seal.json", "step.json", TOMBSTONE}
    with pytest.raises(Cleaned, match="the set upper was deleted by `gristmill clean`"):
        open_sealed(made.url).read(0)
    found = {result.name: result for result in audit_below(root)}
    assert not [gap for result in found.values() for gap in result.gaps]
    assert found["upper"].to_json()["cleaned"]["why"] == "not needed"
    assert (found["upper"].records_in, found["upper"].rejected) == (8, 1)
    assert found["copies"].records_in == 7
    assert list(find_below(root).cleaned) == [made.url]

    assert begin_again(made.url, nothing)
    again = run_step(step, root, InProcessRunner(), 0, again=made)
    end_again(made.url)
    assert again.digest == made.digest
    assert names(made.url) == before
    assert not begin_again(made.url, nothing)
    assert find_sealed(copies.url) is not None


def test_the_audit_still_finds_what_is_missing_of_a_set_whose_input_was_cleaned(root: str) -> None:
    made = run_step(Step("upper", (upper(),), corpus(root)), root, InProcessRunner(), 0)
    copies = run_step(Step("copies", (twice(),), made), root, InProcessRunner(), 0)
    clean(made.url, of(made), nothing)
    store.remove_file(store.join(copies.url, copies.shards[0].path))
    gaps = [gap for result in audit_below(root) for gap in result.gaps]
    assert any("the file is missing" in gap for gap in gaps)


def test_a_set_that_is_another_is_no_set_made_again(root: str) -> None:
    given = corpus(root)
    made = run_step(Step("upper", (upper(),), given), root, InProcessRunner(), 0)
    clean(made.url, of(made), nothing)
    begin_again(made.url, nothing)
    other = SealedSet(made.url, {**made.seal, "digest": "0" * 64})
    with pytest.raises(Alarm, match="came out otherwise than before"):
        run_step(Step("upper", (upper(),), given), root, InProcessRunner(), 0, again=other)
    assert find_tombstone(made.url) is not None


def test_an_artifact_is_gone_and_its_place_is_free(root: str) -> None:
    url = store.join(root, "words/0123456789abcdef")
    made = put_artifact(url, {"a.txt": b"a", "b": b"b"}, {})
    store.write_bytes(store.join(url, "notes.txt"), b"mine")
    tombstone = Tombstone("words", "made", made.digest, "not used", 3, 9, store.last_name(url))
    clean(url, tombstone, nothing)
    assert get_artifact(url) is None
    assert names(url) == {TOMBSTONE, "notes.txt"}
    with pytest.raises(Cleaned, match="the result words was deleted"):
        made.read("a.txt")
    settle(url, nothing)
    assert names(url) == {"notes.txt"}
    assert put_artifact(url, {"a.txt": b"a", "b": b"b"}, {}).digest == made.digest


def test_what_makes_a_result_count_as_finished_goes_first(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = store.join(root, "words/0123456789abcdef")
    made = put_artifact(url, {"a.txt": b"a"}, {})
    put_tombstone(url, Tombstone("words", "made", made.digest, "not used", 2, 9, store.last_name(url)))
    # A clean that was killed here has deleted nothing: the artifact counts.
    assert list(find_below(root).artifacts) == [url]
    removed: list[str] = []
    monkeypatch.setattr(cleaning.store, "remove_file", lambda place: removed.append(store.last_name(place)))
    clean(url, of_artifact(made.digest), nothing)
    assert removed[0] == "artifact.json"


def of_artifact(digest: str) -> Tombstone:
    return Tombstone("words", "made", digest, "not used", 2, 9, "0123456789abcdef")


def test_of_an_unfinished_step_nothing_is_left(root: str) -> None:
    made = run_step(Step("upper", (upper(),), corpus(root)), root, InProcessRunner(), 0)
    store.remove_file(store.join(made.url, "seal.json"))
    clean(made.url, replace(of(made), kind="unfinished", digest=""), nothing)
    assert names(made.url) == set()
    again = run_step(Step("upper", (upper(),), corpus(root)), root, InProcessRunner(), 0)
    assert again.digest == made.digest


def test_orphans_are_what_no_receipt_vouches_for(root: str) -> None:
    made = run_step(Step("upper", (upper(),), corpus(root)), root, InProcessRunner(), 0)
    late = f"data/000000-{'0' * 16}.parquet"
    for path in (late, "checkpoints/progress.json", "data/mine.parquet"):
        store.write_bytes(store.join(made.url, path), b"1")
    found = look(made.url)
    assert {entry.name for entry in find_orphans(made.url, found)} == {late, "checkpoints/progress.json"}
    assert [entry.name for entry in found.foreign] == ["data/mine.parquet"]


def test_a_stage_that_is_not_deterministic_is_told_by_the_seal(root: str) -> None:
    given = corpus(root)
    added = (pa.field("at", pa.int64()),)
    stage = Stage("clock", "tests.fault.law_actors:Clock", added, deterministic=False)
    made = run_step(Step("clock", (stage,), given), root, InProcessRunner(), 0)
    assert not comes_out_the_same(made)
    assert comes_out_the_same(given)
    assert not comes_out_the_same(SealedSet(given.url, {**given.seal, "quarantined": 1}))


def test_links_are_not_followed(tmp_path: Path) -> None:
    inner, outer = tmp_path / "in", tmp_path / "outer"
    for folder in (inner, outer):
        folder.mkdir()
    (outer / "a").write_text("1")
    (inner / "linked").symlink_to(outer)
    os.mkfifo(inner / "pipe")
    assert [(entry.name, entry.kind) for entry in list_entries(str(inner))] == [("linked", "link"), ("pipe", "link")]
    assert {entry.name for entry in walk_entries(str(inner))} == {"linked", "pipe"}


def test_a_tombstone_of_another_set_is_damage(root: str) -> None:
    made = corpus(root)
    clean(made.url, of(made), nothing)
    store.write_bytes(store.join(made.url, TOMBSTONE), replace(of(made), digest="0" * 64).encoded())
    assert "is of the set 000000000000" in find_below(root).unreadable[made.url]
    store.write_bytes(store.join(made.url, TOMBSTONE), b"{}")
    with pytest.raises(Damaged, match="do not match their checksum"):
        find_tombstone(made.url)
