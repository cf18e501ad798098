"""Temporary folders on this machine's disk, which no killed process leaves for ever."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gristmill.shards import owner

_BEGIN = "gristmill-"


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Yield a new temporary folder, removed at the end; those of processes that died are removed at the beginning.

    Example:
        >>> with scratch() as folder:
        ...     _ = (folder / "model.bin").write_bytes(b"1")
        >>> folder.exists()
        False
    """
    for path in Path(tempfile.gettempdir()).glob(f"{_BEGIN}*"):
        # Of other machines and containers that share the folder it is not known who lives.
        if owner.is_dead(path.name.removeprefix(_BEGIN)):
            shutil.rmtree(path, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{_BEGIN}{owner.tag()}-", ignore_cleanup_errors=True) as name:
        yield Path(name)
