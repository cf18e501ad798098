"""Code that goes elsewhere: which files of a folder are code, and how many bytes may be sent."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from gristmill.shards.errors import UserError
from gristmill.shards.scratch import scratch

MOST_BYTES = 32 << 20  # of code that is uploaded

# Folders that hold no code; those whose names begin with a dot belong to the machine and may hold secrets.
_NO_CODE = {"__pycache__", "node_modules", "build", "dist", "data", "out", "runs", "venv"}
_OUTPUTS = {"run.json", "seal.json", "pyvenv.cfg"}  # a folder that holds one of these is an output or an environment


@contextlib.contextmanager
def packed_modules(modules: Mapping[str, Path]) -> Iterator[Path]:
    """Give a folder with the code of top-level modules, each a file or the folder of a package; links are followed.

    Raises:
        UserError: it is larger than what is sensibly uploaded.
    """
    files = _files(modules)
    with scratch() as folder:
        for inner, path in files.items():
            target = folder / inner
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        yield folder


def _files(modules: Mapping[str, Path]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for name, path in modules.items():
        if path.is_dir():
            files |= {f"{name}/{file.relative_to(path).as_posix()}": file for file in _code(path)}
        else:
            files[path.name] = path
    sizes: Counter[str] = Counter()
    for name, file in files.items():
        sizes["/".join(name.split("/")[:2])] += file.stat().st_size
    if sizes.total() > MOST_BYTES:
        largest = ", ".join(f"{part} ({size / 2**20:.0f} MiB)" for part, size in sizes.most_common(3))
        raise UserError(
            f"{', '.join(modules)}: {sizes.total() / 2**20:.0f} MiB would be uploaded, expected {MOST_BYTES >> 20} at "
            f"most; move what is no code elsewhere or into a folder named data; the largest are {largest}"
        )
    return files


def _code(root: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if _OUTPUTS & set(files) or real in seen:  # a link may lead back up
            folders[:] = []
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if _may_be_code(Path(folder, f)))
        yield from (Path(folder, name) for name in sorted(files) if name[0] != "." and Path(folder, name).is_file())


def _may_be_code(folder: Path) -> bool:
    if folder.name[0] == "." or folder.name.endswith(".egg-info"):
        return False
    return folder.name not in _NO_CODE or (folder / "__init__.py").is_file()
