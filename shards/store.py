"""Bytes at a URL: local paths and anything fsspec reaches, with the one operation commits rest on, put if absent."""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
from fsspec.implementations.local import LocalFileSystem

from shards.errors import UserError


def _mode() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


_MODE = _mode()  # of new files; asked for once, since asking sets it for a moment


@dataclass(frozen=True)
class FileInfo:
    """A file below a URL."""

    url: str
    size: int  # bytes
    version: str = ""  # another one where the content was written anew: a checksum, an ETag or a time; "" if not told


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a URL and the path in it."""
    try:
        fs, path = fsspec.url_to_fs(os.path.expanduser(url) if "://" not in url else url)
    except ImportError as error:
        raise UserError(f"{url}: the package for this kind of storage is missing: {error}") from None
    except ValueError as error:
        raise UserError(f"{url}: not a path or URL that can be read: {error}") from None
    return fs, path


def join(url: str, *parts: str) -> str:
    """Return the URL below ``url``."""
    return posixpath.join(url, *parts)


def is_local(url: str) -> bool:
    """Tell whether a URL is a path on this machine's own file system."""
    return isinstance(filesystem(url)[0], LocalFileSystem)


def exists(url: str) -> bool:
    """Tell whether there is a file or folder at a URL."""
    fs, path = filesystem(url)
    with _told(url):
        return bool(fs.exists(path))


def read_bytes(url: str) -> bytes:
    """Return a file's bytes; a missing file is a :class:`FileNotFoundError`."""
    fs, path = filesystem(url)
    with _told(url):
        return fs.cat_file(path)


def read_if_present(url: str) -> bytes | None:
    """Return a file's bytes, or ``None`` where there is none."""
    try:
        return read_bytes(url)
    except FileNotFoundError:
        return None


def open_read(url: str) -> BinaryIO:
    """Open a file for reading at any place in it."""
    fs, path = filesystem(url)
    with _told(url):
        return fs.open(path, "rb")


def write_bytes(url: str, data: bytes) -> None:
    """Write a file whole, over one that is there."""
    fs, path = filesystem(url)
    with _told(url):
        if isinstance(fs, LocalFileSystem):
            _write_local(Path(path), data, only_if_absent=False)
        else:
            fs.pipe_file(path, data)


def put_if_absent(url: str, data: bytes) -> bool:
    """Write a file whole unless one is there; tell whether it was written.

    Of several writers at once exactly one wins: on local disk by a hard link, which fails if the name exists;
    on object stores by a conditional put (``If-None-Match: *``).
    """
    fs, path = filesystem(url)
    with _told(url):
        if isinstance(fs, LocalFileSystem):
            return _write_local(Path(path), data, only_if_absent=True)
        while True:
            try:
                fs.pipe_file(path, data, mode="create")
            except FileExistsError:
                return False
            except OSError as error:
                code = _error_code(error)
                if code == "ConditionalRequestConflict":  # two puts at one moment: neither may have won yet
                    time.sleep(0.05)
                    continue
                if code == "PreconditionFailed":
                    return False
                raise
            return True


def _error_code(error: OSError) -> str:
    """Return an object store's own code; s3fs keeps the client's error as the cause."""
    response = getattr(error.__cause__, "response", None) or {}
    return response.get("Error", {}).get("Code", "")


def remove(url: str) -> None:
    """Remove a file or a folder with all below it; one that is not there is no error."""
    fs, path = filesystem(url)
    with _told(url), contextlib.suppress(FileNotFoundError):
        fs.rm(path, recursive=True)


def list_names(url: str) -> list[str]:
    """Return the names directly below a URL, sorted; none where there is no such folder."""
    fs, path = filesystem(url)
    fs.invalidate_cache(path)
    with _told(url):
        try:
            return sorted(posixpath.basename(p.rstrip("/")) for p in fs.ls(path, detail=False))
        except FileNotFoundError:
            return []
        finally:
            # Else a file that another process puts later is taken for absent, also when it is read by its name.
            fs.invalidate_cache(path)


def walk(url: str) -> Iterator[FileInfo]:
    """Give every file below a folder, or the file itself, in the order of their paths."""
    fs, path = filesystem(url)
    with _told(url):
        for info in [fs.info(path)] if fs.isfile(path) else _below(fs, path):
            inner = info["name"]
            whole = fs.unstrip_protocol(inner) if "://" in url else inner
            yield FileInfo(whole, int(info.get("size") or 0), _version(info))


def _below(fs: fsspec.AbstractFileSystem, folder: str) -> Iterator[dict[str, Any]]:
    """Give what the storage says of each file below a folder: its own, then folder by folder.

    Unlike fsspec's walk, which passes over folders that cannot be listed, so that files would be missed in silence.
    """
    try:
        listed = fs.ls(folder, detail=True)
    except FileNotFoundError:
        return
    # Object stores may list a folder's marker as a file in it.
    inner = sorted((i for i in listed if i["name"].rstrip("/") != folder.rstrip("/")), key=lambda info: info["name"])
    yield from (info for info in inner if info["type"] != "directory")
    for info in inner:
        if info["type"] == "directory":
            yield from _below(fs, info["name"].rstrip("/"))


# What kinds of storage call a file's version, what follows the content alone before what follows each writing.
_VERSIONS = ("md5Hash", "ETag", "blob_id", "etag", "mtime", "LastModified", "last_modified", "modified", "created")


def _version(info: Mapping[str, Any]) -> str:
    """Return a file's version from what its listing says, without another request."""
    if info.get("islink"):  # the listing tells when the link was made; links are local, so asking is cheap
        with contextlib.suppress(OSError):
            return f"mtime:{os.stat(info['name']).st_mtime}"
    for key in _VERSIONS:
        if info.get(key):
            value = info[key]
            return f"{key}:{value.timestamp() if isinstance(value, datetime) else value}"
    return ""


@contextlib.contextmanager
def _told(url: str) -> Iterator[None]:
    """Turn the errors of unreachable or refused storage into a sentence."""
    try:
        yield
    except (FileNotFoundError, FileExistsError, UserError):
        raise
    except PermissionError as error:
        raise UserError(f"{url}: access refused ({error}); check the credentials or the permissions") from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise UserError(f"{url}: no space left on the device") from None
        raise
    except Exception as error:
        # Client libraries raise their own classes when an endpoint cannot be reached at all.
        if type(error).__module__.split(".")[0] in {"botocore", "aiobotocore", "aiohttp", "gcsfs", "google"}:
            raise UserError(f"{url}: the storage cannot be reached: {error}") from None
        raise


def _write_local(path: Path, data: bytes, *, only_if_absent: bool) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".part-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.chmod(temporary, _MODE)  # a temporary file is its owner's alone
        if not only_if_absent:
            os.replace(temporary, path)
            return True
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        return True
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
