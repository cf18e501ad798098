"""The samples of a bank: files that are mapped when first used, those of a remote bank from a copy on the node."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from gristmill.shards import checked, disk
from gristmill.shards.artifact import Artifact
from gristmill.shards.errors import Damaged
from gristmill.shards.store import filesystem, is_local, join, read_pieces

SAMPLES = "samples"  # folder of a bank's files


class Samples:
    """The files of a bank's samples, mapped when first used, after a comparison with their digests."""

    def __init__(self, artifact: Artifact, names: Sequence[str], kind: type[np.generic]) -> None:
        self._artifact, self._names, self._kind = artifact, names, np.dtype(kind).newbyteorder("<")
        self._mapped: dict[int, np.ndarray] = {}

    def __getitem__(self, number: int) -> np.ndarray:
        if number not in self._mapped:
            path = f"{SAMPLES}/{self._names[number]}"
            place, sha = join(self._artifact.url, path), self._artifact.beside[path]
            if is_local(place):
                checked.check_file(place, sha)
                local = Path(filesystem(place)[1])
            else:
                local = _cached(place, self._names[number], sha)
            # As a plain array, so that slices are.
            self._mapped[number] = np.asarray(np.memmap(local, dtype=self._kind, mode="r"))
        return self._mapped[number]


def _cached(url: str, name: str, sha: str) -> Path:
    """Return the copy of a remote file in the node's cache; it is fetched if it is absent or damaged.

    Raises:
        Damaged: the remote file is missing, or is not what was committed.
    """
    default = Path(tempfile.gettempdir()) / f"gristmill-{os.getuid()}"
    folder = Path(os.environ.get("GRISTMILL_CACHE") or default)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / name
    try:
        checked.check_file(str(path), sha)
    except Damaged:
        # Two workers may copy concurrently; the name is the digest, so the second to finish changes nothing.
        disk.sweep(str(folder))
        try:
            disk.write(str(path), lambda: _pieces(url))
            checked.check_file(str(path), sha)
        except Damaged as error:  # of the copy, but so is what it is a copy of
            path.unlink(missing_ok=True)
            raise Damaged(url, error.fault) from None
    return path


def _pieces(url: str) -> Iterator[bytes]:
    try:
        yield from read_pieces(url)
    except FileNotFoundError:
        raise Damaged(url, "the file is missing") from None
