"""Metadata in the folders of a corpus, as of Hugging Face's splits; and labels that are not read."""

from __future__ import annotations

import posixpath
import re

from gristmill.actors.sources.files import SUFFIXES, Say, key_of
from gristmill.shards.store import bare, list_names

METADATA = {"metadata.jsonl": "manifest", "metadata.csv": "table", "metadata.parquet": "parquet"}
"""The names of such files, and the kinds of corpora that they make."""
_SPLITS = 20  # folders that are looked into, of each level
_LEVELS = 2  # train/, or data/train/
_LABELS = re.compile(r"(?<![a-z])(metadata|manifest|transcripts?|transcriptions?|cuts|supervisions|labels)(?![a-z])")
_LISTS = tuple(suffix for kind in ("manifest", "lhotse", "table", "parquet") for suffix in SUFFIXES[kind])
_NAMED = 3  # of many files


def metadata_of_splits(folder: str) -> list[str]:
    """Return the metadata of the folders in a folder, one of each, or of those one level deeper if these have none."""
    inner = [folder]
    for _ in range(_LEVELS):
        inner = [f"{one}/{name}" for one in inner for name in list_names(one) if "." not in name]
        if len(inner) > _SPLITS:
            return []
        held = ((one, set(list_names(one))) for one in inner)
        found = [f"{one}/{next(iter(there))}" for one, names in held if (there := [n for n in METADATA if n in names])]
        if found:
            return found
    return []


def of_splits(folder: str, kind: str, say: Say) -> list[str]:
    """Return the metadata of the splits in a folder that are of one kind; the others are told."""
    found = metadata_of_splits(folder)
    chosen = [file for file in found if METADATA[posixpath.basename(file)] == kind]
    tell_unread(folder, [key_of(file, folder) for file in found if file not in chosen], say)
    return chosen


def corpus_of(file: str, url: str, corpus: str) -> str:
    """Return the begin of the ids of a file's records: of a split in a folder, with the split."""
    folder = posixpath.dirname(bare(file))
    return corpus if "*" in url or url in (file, folder) else f"{corpus}/{key_of(folder, url)}"


def are_labels(name: str) -> bool:
    """Return whether a file is one of labels by its name."""
    return name.lower().endswith(_LISTS) and bool(_LABELS.search(name.lower()))


def tell_unread(folder: str, names: list[str], say: Say) -> None:
    """Tell of files of labels in a folder that are not read."""
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        say(f"{folder}: labels that are not read: {', '.join(names[:_NAMED])}{more}; name such a file to read it")
