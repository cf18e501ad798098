"""What lies in a folder, to tell what a run wrote."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path


def listing(folder: Path | str) -> dict[str, tuple[int, int]]:
    """Return size and time of change of every file."""
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def receipts(folder: Path | str) -> dict[str, int]:
    """Return the time of change of each receipt, by shard."""
    return {path.stem: path.stat().st_mtime_ns for path in Path(folder).rglob("receipts/*.json")}


def calls(note: Path) -> Counter[str]:
    """Return how often each record was given to the actor that notes its calls."""
    found: Counter[str] = Counter()
    for path in note.glob("*"):
        # A process that was killed while it noted its call has left an empty note.
        found.update(record for record in path.read_text().split("\n") if record)
    return found


def calls_by_shard(note: Path) -> dict[str, int]:
    """Return the most often that any record of a shard was given to the actor; records are named r<shard>-<row>."""
    most: dict[str, int] = {}
    for record, count in calls(note).items():
        shard = f"{int(record[1:4]):06d}"
        most[shard] = max(most.get(shard, 0), count)
    return most


def seal(folder: Path | str) -> dict:
    """Return the only seal below a folder."""
    (path,) = Path(folder).rglob("seal.json")
    return json.loads(path.read_text())
