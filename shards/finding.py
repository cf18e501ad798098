"""Finds the sets and artifacts below an output, and lists those that cannot be read."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

from gristmill.shards import store
from gristmill.shards.artifact import MARK, get_artifact
from gristmill.shards.dataset import SEAL, SealedSet, find_sealed, read_seals
from gristmill.shards.engine import PLAN
from gristmill.shards.errors import Damaged, UserError, with_class
from gristmill.shards.job import CHECKPOINTS
from gristmill.shards.receipt import RECEIPTS
from gristmill.shards.tombstone import TOMBSTONE, Tombstone, find_tombstone

_DEPTH = 4  # levels of folders below an output that are searched
COUNTS = ("records_in", "records_out", "rejected", "quarantined")
# Raised when a damaged or edited JSON file of ours is read (Arrow's schema errors are ValueErrors).
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, UserError, Damaged)


@dataclass(frozen=True)
class CleanedResult:
    """A result whose data were deleted, and the set that its seal describes if that was kept."""

    url: str
    tombstone: Tombstone
    sealed: SealedSet | None


@dataclass(frozen=True)
class Found:
    """The contents of an output."""

    sealed: list[SealedSet]
    artifacts: list[str]
    unsealed: list[str]  # steps in progress
    training: list[str]  # trainings in progress, found by their checkpoints
    unreadable: dict[str, str] = field(default_factory=dict)  # url of a set or artifact -> the fault
    names: dict[str, str] = field(default_factory=dict)  # url -> name of the step, artifact or training
    cleaned: dict[str, CleanedResult] = field(default_factory=dict)  # by url: they are in none of the lists above


def find_below(url: str) -> Found:
    """Look for sets and artifacts at a URL and below it."""
    found = Found([], [], [], [])

    def look(folder: str, depth: int, above: str, here: str) -> None:
        names = store.list_names(folder)
        found.names[folder] = above or folder  # OUT/name/fingerprint
        if TOMBSTONE in names and _is_cleaned(folder, names, found):
            return
        if SEAL in names:
            try:
                found.sealed.append(_sealed(folder))
            except UNREADABLE as error:
                found.unreadable[folder] = f"{SEAL}: cannot be read ({why_unreadable(error)})"
        elif MARK in names:
            try:
                get_artifact(folder)
            except UNREADABLE as error:
                found.unreadable[folder] = f"{MARK}: cannot be read ({why_unreadable(error)})"
            else:
                found.artifacts.append(folder)
        elif PLAN in names or RECEIPTS in names:
            found.unsealed.append(folder)
        elif CHECKPOINTS in names:
            found.training.append(folder)
        elif depth:
            for name in names:
                if "." not in name:
                    look(store.join(folder, name), depth - 1, here, name)

    look(url, _DEPTH, "", "")
    return found


def _is_cleaned(folder: str, names: list[str], found: Found) -> bool:
    """Note a result that was cleaned, or whose tombstone cannot be read; return whether it is one of them."""
    try:
        tombstone = find_tombstone(folder)
        if tombstone is None or (tombstone.kind == "made" and {SEAL, MARK}.intersection(names)):
            return False  # it is whole again, or yet: what makes it count as finished is the first to be deleted
        sealed = _sealed(folder) if tombstone.kind == "set" and SEAL in names else None
        if sealed is not None and sealed.digest != tombstone.digest:
            raise Damaged(store.join(folder, TOMBSTONE), f"is of the set {tombstone.digest[:12]}")
    except UNREADABLE as error:
        found.unreadable[folder] = f"{TOMBSTONE}: cannot be read ({why_unreadable(error)})"
    else:
        found.cleaned[folder] = CleanedResult(folder, tombstone, sealed)
    return True


def _sealed(url: str) -> SealedSet:
    sealed = find_sealed(url)
    if sealed is None:
        raise Damaged(store.join(url, SEAL), "the file is missing")
    return sealed


def seal_versions(url: str) -> dict[str, dict[str, Any]]:
    """Return the seals at a URL by their digest: each re-run of quarantined records adds one.

    An unreadable seal is left out and so counts as missing.
    """
    seals = {}
    with contextlib.suppress(*UNREADABLE):
        for seal in read_seals(url):
            seals[seal["digest"]] = seal
    return seals


def why_unreadable(error: Exception) -> str:
    """Return an ``UNREADABLE`` error as the end of a sentence."""
    return error.fault if isinstance(error, Damaged) else with_class(error)[:120]
