"""Moves damaged work of an output aside, so that the next run makes it again.

A receipt whose files are not what was committed is moved with them, and the seal of its set too: then the set counts as
unfinished, and the run makes the missing shards. Nothing is deleted: all that is moved lies below ``OUT/damaged.N`` as
evidence. Whatever was made of a set is found again by its digest; if the set comes out otherwise this time, so is what
depends on it made anew (law 5).
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gristmill.shards import canonical, checked, store
from gristmill.shards.artifact import MARK, find_made, get_artifact
from gristmill.shards.dataset import SealedSet, find_sealed, read_seal, seal_name, summarised
from gristmill.shards.engine import PLAN, check_plan, planned_fingerprint, read_plan
from gristmill.shards.errors import Damaged, UserError
from gristmill.shards.finding import find_below
from gristmill.shards.job import CHECKPOINTS, PROGRESS
from gristmill.shards.receipt import Receipt, check_place, committed_shards, find_receipt, receipt_url
from gristmill.shards.tombstone import TOMBSTONE, find_tombstone, tombstone_url

_FINGERPRINT = re.compile("[0-9a-f]{16}")  # the start of one, as the name of a folder that a run made
_LATER = {"errors", "quarantine"}  # of a seal: without records that a later requeue took over
DAMAGED = "damaged"  # folders below OUT that hold what was moved: damaged.1, damaged.2, ...


@dataclass(frozen=True)
class Moved:
    """A file that was moved aside."""

    url: str
    fault: str


class Mover:
    """Moves files of an output into a new folder below it (or below a folder in it), under the same paths."""

    def __init__(self, out: str, below: str = "") -> None:
        self.moved: list[Moved] = []
        self._out = out
        home = store.join(out, below) if below else out
        taken = [int(name.rpartition(".")[2]) for name in store.list_names(home) if name.startswith(f"{DAMAGED}.")]
        self.folder = store.join(home, f"{DAMAGED}.{max(taken, default=0) + 1}")

    def move(self, url: str, fault: str) -> None:
        """Move a file, which may be missing, and note what is wrong with it.

        Raises:
            UserError: it lies elsewhere, where a link in the output leads.
        """
        inner = url.removeprefix(self._out).lstrip("/")
        if store.is_local(url):
            folder, out = (os.path.realpath(store.filesystem(one)[1]) for one in (posixpath.dirname(url), self._out))
            if os.path.commonpath([folder, out]) != out:
                raise UserError(f"{url}: {fault}, and a link leads from {self._out} to it; expected its own output")
        if store.is_taken(url):
            store.move_file(url, store.join(self.folder, inner))
        self.moved.append(Moved(url, fault))


def repair(out: str, mover: Mover) -> Iterator[str]:
    """Move the damaged files of an output aside, and yield the URL of each set and artifact that was looked at.

    The caller holds the output's lease. Every stored byte is read, as by an audit.

    Example:
        >>> from pathlib import Path
        >>> from gristmill.shards.artifact import get_artifact, put_artifact
        >>> made = put_artifact("made/out/words/0", {"words.txt": b"on off"}, {})
        >>> _ = Path("made/out/words/0", made.files["words.txt"]).write_bytes(b"on of")
        >>> mover = Mover("made/out")
        >>> len(list(repair("made/out", mover))), mover.moved[-1].fault
        (1, 'a file of the artifact is damaged')
        >>> get_artifact("made/out/words/0") is None
        True
    """
    found = find_below(out)
    folders = [sealed.url for sealed in found.sealed] + found.unsealed + found.artifacts + list(found.unreadable)
    for folder in folders:
        names = store.list_names(folder)
        if TOMBSTONE in names and folder in found.unreadable:
            _tombstone(folder, mover)
        if MARK in names:
            _artifact(folder, mover)
        else:
            _set(folder, names, mover)
        yield folder
    for folder in found.training:
        _checkpoints(store.join(folder, CHECKPOINTS), mover)
        yield folder


def _tombstone(folder: str, mover: Mover) -> None:
    """Move a damaged tombstone aside; without its data a set then counts as damaged too, and is made again."""
    try:
        found = find_tombstone(folder)
        sealed = find_sealed(folder) if found is not None and found.kind == "set" else None
    except Damaged as error:
        if store.last_name(error.url) == TOMBSTONE:
            mover.move(error.url, error.fault)
        return
    if found is not None and sealed is not None and sealed.digest != found.digest:
        mover.move(tombstone_url(folder), "is of another set")


def _set(folder: str, names: list[str], mover: Mover) -> None:
    sound: dict[str, Receipt] = {}
    before = len(mover.moved)
    for shard in committed_shards(folder):
        _shard(folder, shard, sound, mover)
    plan = _plan(folder, mover)
    versions = [name for name in names if name.startswith("seal")]
    for version, name in enumerate(sorted(versions, key=lambda name: (len(name), name))):
        url = store.join(folder, name)
        # The versions of a seal are of the same shards.
        moved = len(mover.moved) > before
        fault = "a file of its set was moved aside" if moved else _seal_fault(folder, version, name, sound, plan)
        if fault:
            mover.move(url, fault)


def _plan(folder: str, mover: Mover) -> dict[str, Any] | None:
    """Return the plan of a step's set, unless it has none or a damaged one, which is moved."""
    try:
        plan = read_plan(folder)
        if plan is not None and _is_in_place(folder):
            check_plan(folder, plan, store.last_name(folder))
    except Damaged as error:
        mover.move(error.url, error.fault)
        return None
    return plan


def is_fingerprint(name: str) -> bool:
    """Return whether a name is one that a run gives to the folder of a set or artifact: the start of a fingerprint."""
    return _FINGERPRINT.fullmatch(name) is not None


def _is_in_place(folder: str) -> bool:
    """Return whether a folder has the name that a run gave it; a copy may have another."""
    return is_fingerprint(store.last_name(folder))


def _shard(folder: str, shard: str, sound: dict[str, Receipt], mover: Mover) -> None:
    url = receipt_url(folder, shard)
    try:
        receipt = find_receipt(folder, shard)
        assert receipt is not None  # it was listed
        if _is_in_place(folder):
            check_place(folder, receipt)
    except Damaged as error:
        mover.move(url, error.fault)
        return
    faults = checked.find_faults(folder, {file.path: file.sha256 for file in receipt.files})
    if not faults:
        sound[shard] = receipt
        return
    for fault in faults:
        mover.move(fault.url, fault.fault)
    mover.move(url, "a file of the shard is damaged")


def _seal_fault(
    folder: str, version: int, name: str, sound: dict[str, Receipt], plan: dict[str, object] | None
) -> str | None:
    """Return what is wrong with a seal whose shards are all sound."""
    if name != seal_name(version):
        return f"{seal_name(version)} is missing"
    try:
        seal = read_seal(folder, version)
    except Damaged as error:
        return error.fault
    assert seal is not None  # it was listed
    lacking = [entry["name"] for entry in seal["shards"] if entry["name"] not in sound]
    if lacking:
        return f"the receipt of its shard {lacking[0]} is missing"
    sealed = SealedSet(folder, seal)
    found = summarised(sealed.schema, [sound[entry.name] for entry in sealed.shards])
    for key, value in found.items():
        if key not in _LATER and seal[key] != value:
            return f"its {key} is not that of its shards"
    if seal.get("input_digests") is None:
        return None if plan is None else "it names no input"
    if plan is None:
        return f"{PLAN} is missing"
    if plan["step"] != seal["name"]:
        return "its name is not that of its plan"
    return None if planned_fingerprint(plan) == seal["fingerprint"] else "its fingerprint is not that of its plan"


def _artifact(folder: str, mover: Mover) -> None:
    mark = store.join(folder, MARK)
    try:
        artifact = find_made(folder) if _is_in_place(folder) else get_artifact(folder)
    except Damaged as error:
        mover.move(mark, error.fault)
        return
    assert artifact is not None  # it was listed
    faults = checked.find_faults(folder, artifact.stored)
    for fault in faults:
        mover.move(fault.url, fault.fault)
    if faults:
        mover.move(mark, "a file of the artifact is damaged")
    elif canonical.digest(artifact.sha256) != artifact.digest:
        mover.move(mark, "its digest is not that of its files")


def _checkpoints(folder: str, mover: Mover) -> None:
    shas = {name: name.rpartition("-")[2] for name in store.list_names(folder) if name != PROGRESS}
    for fault in checked.find_faults(folder, shas):
        mover.move(fault.url, fault.fault)
