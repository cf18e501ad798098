"""Deletes the data of results that nothing needs, behind tombstones (:mod:`gristmill.shards.tombstone`).

Who calls these functions holds the lease of the output. In the folder of a result only what a run writes is deleted, by
its name; anything else, and links, are left alone. The order makes a kill harmless at any point: the tombstone comes
first, then the file that makes the result count as finished (unless its seal is kept), then receipts, then data.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from gristmill.shards import store
from gristmill.shards.ahead import read_ahead
from gristmill.shards.artifact import MARK, get_artifact
from gristmill.shards.dataset import SEAL, SealedSet, read_seals
from gristmill.shards.disk import CLAIM, PART
from gristmill.shards.engine import PLAN
from gristmill.shards.entries import FolderEntry, remove_empty, walk_entries
from gristmill.shards.errors import Damaged
from gristmill.shards.index import base_name
from gristmill.shards.job import CHECKPOINTS, PROGRESS, STORAGE
from gristmill.shards.receipt import RECEIPTS, SHARD_FILES, find_receipt
from gristmill.shards.tombstone import (
    TOMBSTONE,
    Tombstone,
    dated,
    find_tombstone,
    put_tombstone,
    tombstone_url,
    write_tombstone,
)

_SEALS = re.compile(r"seal(-\d+)?\.json")
_SHARD = re.compile(r"(?P<shard>.+)-[0-9a-f]{16}\.parquet")
_CHECKPOINT = re.compile(r"step-\d+-[0-9a-f]{64}")
_DIGESTED = re.compile(r"[^.].*-[0-9a-f]{16}([0-9a-f]{16}|[0-9a-f]{48})?(\.\w+)*")  # files of artifacts and of banks

Check = Callable[[], None]  # raises if the lease is lost


@dataclass
class Contents:
    """The files in the folder of a result; paths are below it."""

    marks: list[FolderEntry] = field(default_factory=list)  # seals, artifact.json
    plan: list[FolderEntry] = field(default_factory=list)
    receipts: list[FolderEntry] = field(default_factory=list)
    data: list[FolderEntry] = field(default_factory=list)  # and all else that a run writes
    foreign: list[FolderEntry] = field(default_factory=list)  # what is no run's, and links

    def deletable(self, kind: Literal["set", "made", "unfinished"]) -> list[list[FolderEntry]]:
        """Return the files that are deleted with a tombstone of a kind, in groups, in order."""
        groups = [self.receipts, self.data]
        return groups if kind == "set" else [sorted(self.marks, key=_oldest_first), *groups, self.plan]


def _oldest_first(entry: FolderEntry) -> tuple[int, str]:
    return len(entry.name), entry.name  # seal.json: without it the set is not sealed


def look(url: str, own: Iterable[str] = (), entries: Sequence[FolderEntry] | None = None) -> Contents:
    """Return what lies in the folder of a result; links are not followed. ``own`` are paths of files that a run wrote,
    ``entries`` what :func:`walk_entries` has listed, if it has.

    Example:
        >>> from gristmill.shards.artifact import put_artifact
        >>> made = put_artifact("made/look/words/0", {"words.txt": b"on"}, {})
        >>> store.write_bytes("made/look/words/0/notes.txt", b"mine")
        >>> found = look("made/look/words/0")
        >>> [entry.name for entry in found.marks], len(found.data), [entry.name for entry in found.foreign]
        (['artifact.json'], 1, ['notes.txt'])
    """
    found, known = Contents(), set(own)
    entries = list(walk_entries(url)) if entries is None else entries
    if any(entry.name == MARK for entry in entries):
        artifact = get_artifact(url)
        known.update(() if artifact is None else artifact.stored)
    for entry in entries:
        if entry.name == TOMBSTONE or is_part(entry.name):
            continue
        if entry.kind == "link":
            found.foreign.append(entry)
        elif entry.name == MARK or _SEALS.fullmatch(entry.name):
            found.marks.append(entry)
        elif entry.name == PLAN:
            found.plan.append(entry)
        elif entry.name.startswith(f"{RECEIPTS}/") and entry.name.endswith(".json"):
            found.receipts.append(entry)
        elif entry.name in known or is_own(entry.name):
            found.data.append(entry)
        else:
            found.foreign.append(entry)
    return found


def is_part(path: str) -> bool:
    """Return whether a file is half-written: those of dead processes go with the lease (:func:`store.sweep`)."""
    return any(part.startswith(PART) for part in path.split("/"))


def is_own(path: str) -> bool:
    """Return whether a run may have written a file, by its path below the folder of a result.

    Example:
        >>> is_own("data/000000-0123456789abcdef.parquet"), is_own("data/notes.txt")
        (True, False)
    """
    *folders, name = path.split("/")
    top = folders[0] if folders else ""
    if top == STORAGE or any(part.startswith(CLAIM) for part in folders):
        return True
    if len(folders) > 1:
        return False
    if top in SHARD_FILES:
        return _SHARD.fullmatch(name) is not None
    if top == CHECKPOINTS:
        return name == PROGRESS or _CHECKPOINT.fullmatch(name) is not None
    return _DIGESTED.fullmatch(name) is not None


def comes_out_the_same(sealed: SealedSet) -> bool:
    """Return whether a set has the same digest if it is made again.

    It may not if a stage does not promise that, or if records of it broke a stage, in this or in an earlier attempt.
    """
    seal = sealed.seal
    again = any(base_name(entry["name"]) != entry["name"] for entry in seal["shards"])
    return seal.get("deterministic", True) and not seal["quarantined"] and not again


def clean(url: str, tombstone: Tombstone, check: Check) -> None:
    """Commit that the result at a URL is cleaned, and delete its data; a clean that was killed is continued.

    Example:
        >>> from gristmill.shards.artifact import put_artifact
        >>> made = put_artifact("made/old/words/0", {"words.txt": b"on"}, {})
        >>> clean("made/old/words/0", Tombstone("words", "made", made.digest, "not used", 1, 2, "0"), lambda: None)
        >>> store.list_names("made/old/words/0"), find_tombstone("made/old/words/0").why
        (['cleaned.json'], 'not used')
    """
    check()
    found = find_tombstone(url)
    if found is None:
        found = put_tombstone(url, tombstone)
    elif found.remaking:
        found = dated(tombstone)
        write_tombstone(url, found)
    finish(url, found, check)


def finish(url: str, tombstone: Tombstone, check: Check) -> None:
    """Delete what a tombstone says is to be deleted, as far as it is still there."""
    for group in look(url, tombstone.own).deletable(tombstone.kind):
        remove_entries(url, group, check)
    if tombstone.kind == "unfinished":
        store.remove_file(tombstone_url(url))
        remove_empty(url.rpartition("/")[0])
    else:
        remove_empty(url)


def remove_entries(url: str, entries: Sequence[FolderEntry], check: Check) -> None:
    """Delete files below a folder, several at once on an object storage, each after a look at the lease."""

    def remove(entry: FolderEntry) -> None:
        check()
        store.remove_file(store.join(url, entry.name))

    for _ in map(remove, entries) if store.is_local(url) else read_ahead(remove, entries):
        pass


def settle(url: str, check: Check) -> None:
    """Make way for a result that is to be made in a folder: delete what a clean has left there, with its tombstone."""
    found = find_tombstone(url)
    if found is None:
        return
    finish(url, replace(found, kind="made"), check)
    store.remove_file(tombstone_url(url))


def begin_again(url: str, check: Check) -> bool:
    """Begin to make a cleaned set again; return whether it was cleaned. What an earlier attempt made is kept."""
    found = find_tombstone(url)
    if found is None:
        return False
    if not found.remaking:
        finish(url, found, check)
        write_tombstone(url, replace(found, remaking=True))
    return True


def end_again(url: str) -> None:
    """Commit that a set which was made again is whole."""
    store.remove_file(tombstone_url(url))


def find_orphans(url: str, found: Contents) -> list[FolderEntry]:
    """Return the files of a finished result that belong to nothing: data of attempts that came late or were killed,
    checkpoints of a finished training.

    A receipt vouches for its files, whether a seal names them or not (records that are being requeued).

    Raises:
        Damaged: the seal, or the artifact's file, is not as it was written.
    """
    marks = {entry.name for entry in found.marks}
    if SEAL not in marks and MARK not in marks:
        return []
    artifact = get_artifact(url)
    known = set() if artifact is None else set(artifact.stored)
    for seal in read_seals(url):
        known.update(file.path for file in SealedSet(url, seal).files)
    return [entry for entry in found.data if entry.name not in known and not _is_vouched(url, entry)]


def _is_vouched(url: str, entry: FolderEntry) -> bool:
    folder, _, name = entry.name.rpartition("/")
    place = _SHARD.fullmatch(name)
    if folder not in SHARD_FILES or place is None:
        return False
    try:
        receipt = find_receipt(url, place["shard"])
    except Damaged:
        return True  # what it vouches for is not known
    return receipt is not None and any(file.path == entry.name for file in receipt.files)


def sizes(entries: Iterable[FolderEntry]) -> tuple[int, int]:
    """Return the number of files and their bytes."""
    counted = [entry.size for entry in entries]
    return len(counted), sum(counted)
