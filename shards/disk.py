"""Files on this machine's file systems: written whole, put if absent, and there after a power cut."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from gristmill.shards import owner
from gristmill.shards.errors import UserError
from gristmill.shards.faults import is_of_name, not_written

PART = ".part-"  # begins the names of files that are being written, then the writer's tag
CLAIM = ".claim-"  # begins the names of folders that replace hard links
_TRIES = 3  # at a file whose part was taken away meanwhile: see `sweep`
# What link answers on file systems without hard links: exFAT, FAT, many FUSE, network and overlay file systems.
_NO_LINKS = {
    errno.EPERM,
    errno.EACCES,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EMLINK,
    errno.EINVAL,
    errno.EXDEV,
}

Chunks = Callable[[], Iterable[bytes]]  # called again for each try
T = TypeVar("T")


def write(path: str, chunks: Chunks) -> None:
    """Write a file whole, replacing an existing one; it lasts once this returns.

    Raises:
        UserError: the file cannot be written.
    """
    _whole(Path(path), chunks, os.replace)


def put(path: str, chunks: Chunks) -> bool:
    """Write a file whole unless one exists; return whether it was written. Of several writers exactly one wins.

    A hard link decides, which fails if the name exists; on a file system without them, the renaming of a folder.

    Raises:
        UserError: the file cannot be written, or the file system offers neither.
    """
    return _whole(Path(path), chunks, _put)


def irregular(path: str) -> str | None:
    """Return what lies in the place of a file, if it is none; ``None`` for a file, or if there is nothing."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # nothing, or a name that no file can have
        return "is a link to no file; expected a file" if os.path.islink(path) else None
    kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
    return None if stat.S_ISREG(mode) else f"is {kind}; expected a file"


def _whole(path: Path, chunks: Chunks, place: Callable[[Path, Path], T]) -> T:
    def act() -> T:
        _make_folder(path.parent)
        with _part(path.parent, chunks) as part:
            placed = place(part, path)
        _sync(path.parent)
        return placed

    try:
        return _again(act)
    except ValueError as error:
        if not is_of_name(error):
            raise
        raise _refusal(path, OSError(errno.EILSEQ, "")) from None
    except OSError as error:
        found = error.filename and Path(os.fsdecode(error.filename))
        if found and not (path.is_relative_to(found) or found.is_relative_to(path.parent)):
            raise  # of what is read for it
        raise _refusal(path, error) from None


def _again(act: Callable[[], T]) -> T:
    """Return the result of an act, which is tried again if another process took its folder or its part away."""
    for _ in range(_TRIES - 1):
        with contextlib.suppress(FileNotFoundError):
            return act()
    return act()


def _refusal(path: Path, error: OSError) -> UserError:
    for place in (*reversed(path.parents), path):
        if os.path.islink(place) and not os.path.exists(place):
            return UserError(
                f"{path}: cannot be written: {place} is a link to {os.readlink(place)}, which does not exist"
            )
    return not_written(str(path), error)


@contextlib.contextmanager
def _part(folder: Path, chunks: Chunks) -> Iterator[Path]:
    """Yield a file of the chunks beside its place, on the device already; it is removed at the end."""
    part = folder / f"{PART}{owner.tag()}-{secrets.token_hex(4)}"
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as out:
            out.writelines(chunks())
            out.flush()
            os.fsync(out.fileno())
        yield part
    finally:
        with contextlib.suppress(OSError):  # moved, or the error that matters is another
            os.unlink(part)


def _put(part: Path, path: Path) -> bool:
    try:
        os.link(part, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _put_by_folder(part, path)
    return True


# Without hard links.


def _put_by_folder(part: Path, path: Path) -> bool:
    """Put a file if absent where there are no hard links; return whether it was this one.

    Who renames a folder with his file in it to the claim of the name has won, since a folder that is not empty cannot
    be replaced. The file is then moved from the claim to its place, by its writer or by any other who comes upon the
    claim: so a writer that dies blocks no one, no clock decides, and a reader sees the whole file or none. A writer
    that claims when the place is taken already takes its file back.
    """
    if not _keeps_full_folders(path.parent):
        raise UserError(
            f"{path.parent}: this file system has no hard links, and renaming replaces full folders on it, so that two "
            "writers cannot be kept apart; expected another file system, or an object storage by its own URL"
        )
    claim = path.with_name(CLAIM + hashlib.sha256(path.name.encode()).hexdigest()[:16])
    own = part.with_name(f"{part.name}-claim")
    os.mkdir(own)
    try:
        os.rename(part, own / part.name)
        _sync(own)
        while not os.path.lexists(path):
            if _claim(own, claim):
                return _settle(claim, part.name, path)
            with contextlib.suppress(FileNotFoundError):  # settled meanwhile
                for name in os.listdir(claim):
                    _move(claim, name, path)
        return False
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _claim(own: Path, claim: Path) -> bool:
    try:
        os.rename(own, claim)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        return False
    return True


def _settle(claim: Path, name: str, path: Path) -> bool:
    """Settle a writer's own claim; return whether its file is, or was, the one in the place."""
    try:
        if os.path.lexists(path):
            os.unlink(claim / name)
            return False
        os.rename(claim / name, path)
    except FileNotFoundError:
        pass  # another writer moved it
    finally:
        with contextlib.suppress(OSError):  # claimed again
            os.rmdir(claim)
    return True


def _move(claim: Path, name: str, path: Path) -> None:
    """Settle another writer's claim, unless it is late, which is for that writer to see."""
    if not os.path.lexists(path):
        os.rename(claim / name, path)


_FULL = {errno.ENOTEMPTY, errno.EEXIST}
_KEEPING: dict[int, bool] = {}  # by device: whether a folder with a file in it cannot be replaced by another


def _keeps_full_folders(folder: Path) -> bool:
    device = os.stat(folder).st_dev
    if device not in _KEEPING:
        with tempfile.TemporaryDirectory(prefix=f"{PART}{owner.tag()}-", dir=folder) as name:
            for inner in ("a", "b"):
                Path(name, inner).mkdir()
                Path(name, inner, inner).touch()
            _KEEPING[device] = not _claim(Path(name, "a"), Path(name, "b"))
    return _KEEPING[device]


# Folders.

_LASTING: set[Path] = set()  # folders whose names are on the device, as far as this process knows


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it; their names last, whoever made them."""
    if folder in _LASTING and folder.is_dir():
        return
    _LASTING.difference_update(place for place in (folder, *folder.parents) if not place.is_dir())
    folder.mkdir(parents=True, exist_ok=True)
    for place in (folder, *folder.parents):
        if place in _LASTING:
            break
        with contextlib.suppress(OSError):  # a folder further up may be on another file system, which is read-only
            _sync(place.parent)
        _LASTING.add(place)


def _sync(folder: Path) -> None:
    """Make the names in a folder last: the data of a file alone does not bring its name back after a power cut."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:
        return  # it may be written to but not read
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES):
            raise  # those file systems do not sync folders
    finally:
        os.close(handle)


def try_folder(path: str) -> None:
    """Check that files can be written below a folder; what is made for it is removed again.

    Raises:
        UserError: no file can be written there, or something else than a folder is in its place.
    """
    folder = Path(path)
    nearest = next((place for place in (folder, *folder.parents) if os.path.exists(place)), folder)
    if os.path.exists(nearest) and not nearest.is_dir():
        kind = "a file" if nearest.is_file() else "not a folder"
        raise UserError(f"{path}: {nearest} is {kind}; expected a folder, or an unused path")
    made: list[Path] = []

    def act() -> None:
        made[:] = [place for place in (folder, *folder.parents) if not os.path.lexists(place)]
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryDirectory(prefix=f"{PART}{owner.tag()}-", dir=folder).cleanup()

    try:
        _again(act)
    except ValueError:
        raise _refusal(folder, OSError(errno.EILSEQ, "")) from None
    except OSError as error:
        raise _refusal(folder, error) from None
    finally:
        for place in made:
            with contextlib.suppress(OSError, ValueError):  # another run began meanwhile, or it was not made
                place.rmdir()


def sweep(path: str) -> int:
    """Remove what processes that died left half-written below a folder; return how many files and folders that were.

    What a live process of this machine writes stays. Of other machines it is not known who lives: a live writer whose
    part is taken away writes it again.
    """
    removed, folders = 0, [path]
    while folders:
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError),
            os.scandir(folders.pop()) as it,
        ):
            for entry in it:
                if entry.name.startswith(PART) and not owner.in_use(entry.name.removeprefix(PART)):
                    removed += 1
                    _remove(entry)
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                    if entry.name.startswith(CLAIM):
                        with contextlib.suppress(OSError):  # with a file in it, it is the next writer's to settle
                            os.rmdir(entry.path)
    return removed


def _remove(entry: os.DirEntry[str]) -> None:
    with contextlib.suppress(OSError):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            os.unlink(entry.path)
