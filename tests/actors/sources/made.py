"""Recordings and tars that tests of the listings write, and what is listed."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile

from gristmill.actors.sources.pointers import POINTERS
from gristmill.actors.sources.speech import list_sources


def tone(path: Path, seconds: float = 0.5, rate: int = 16000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.3 * np.sin(np.arange(round(seconds * rate)) * 0.1), rate)
    return path


def write(path: Path, data: str | bytes | bytearray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def rows(url: object, **options: object) -> list[dict[str, Any]]:
    tables = list(list_sources(str(url), **options))
    assert all(table.schema.equals(POINTERS) for table in tables)
    found = pa.concat_tables(tables).to_pylist()
    assert len({row["id"] for row in found}) == len(found)
    return found
