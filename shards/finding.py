"""Finds the sets and artifacts that lie below an output, and tells those that cannot be read."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

from gristmill.shards import store
from gristmill.shards.artifact import get_artifact
from gristmill.shards.dataset import SealedSet, find_sealed
from gristmill.shards.errors import UserError, with_class
from gristmill.shards.job import CHECKPOINTS

_DEPTH = 4  # folders below an output in which sets are looked for
COUNTS = ("records_in", "records_out", "rejected", "quarantined")
# What a torn or edited JSON file of ours raises when it is read (Arrow's errors of its schema are ValueErrors).
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, UserError)


@dataclass(frozen=True)
class Found:
    """What lies below an output."""

    sealed: list[SealedSet]
    artifacts: list[str]
    unsealed: list[str]  # steps under way
    training: list[str]  # models under way, by their checkpoints
    unreadable: dict[str, str] = field(default_factory=dict)  # url of a set or artifact -> what is wrong there
    names: dict[str, str] = field(default_factory=dict)  # url -> the step, artifact or training it is of


def find_below(url: str) -> Found:
    """Look for sets and artifacts at a URL and below it."""
    found = Found([], [], [], [])

    def look(folder: str, depth: int, above: str, here: str) -> None:
        names = store.list_names(folder)
        found.names[folder] = above or folder  # OUT/name/fingerprint
        if "seal.json" in names:
            try:
                found.sealed.append(_sealed(folder))
            except UNREADABLE as error:
                found.unreadable[folder] = f"seal.json: cannot be read ({why_unreadable(error)})"
        elif "artifact.json" in names:
            try:
                get_artifact(folder)
            except UNREADABLE as error:
                found.unreadable[folder] = f"artifact.json: cannot be read ({why_unreadable(error)})"
            else:
                found.artifacts.append(folder)
        elif "step.json" in names or "receipts" in names:
            found.unsealed.append(folder)
        elif CHECKPOINTS in names:
            found.training.append(folder)
        elif depth:
            for name in names:
                if "." not in name:
                    look(store.join(folder, name), depth - 1, here, name)

    look(url, _DEPTH, "", "")
    return found


def _sealed(url: str) -> SealedSet:
    """Return the sealed set at a URL, with all that the audit reads of its seal."""
    sealed = find_sealed(url)
    if sealed is None:
        raise ValueError("it is gone")
    lacking = [key for key in ("name", "digest", "schema", "shards", *COUNTS) if key not in sealed.seal]
    if lacking:
        raise ValueError(f"it lacks {', '.join(lacking)}")
    _ = sealed.schema, sealed.shards  # read when first asked for
    return sealed


def seal_versions(url: str) -> dict[str, dict[str, Any]]:
    """Return the seals at a URL by their digest: quarantined records that were run again make another one.

    One that cannot be read is left out: whoever needs it finds it missing.
    """
    seals = {}
    for name in store.list_names(url):
        if re.fullmatch(r"seal(-\d+)?\.json", name):
            with contextlib.suppress(*UNREADABLE):
                seal = json.loads(store.read_bytes(store.join(url, name)))
                seals[seal["digest"]] = seal
    return seals


def why_unreadable(error: Exception) -> str:
    """Return one of ``UNREADABLE`` for the end of a sentence."""
    return with_class(error)[:120]
