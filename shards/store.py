"""Bytes at a URL: local paths and anything fsspec reaches, with the one operation commits rest on, put if absent."""

from __future__ import annotations

import contextlib
import contextvars
import errno
import os
import posixpath
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from gristmill.shards.environment import seconds
from gristmill.shards.errors import UserError, one_line


def _mode() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


_MODE = _mode()  # of new files; asked for once, since asking sets it for a moment

T = TypeVar("T")

SECONDS = 120.0  # that a storage which is down or refuses for a while is tried again
SETTING = "GRISTMILL_STORAGE_SECONDS"  # the environment variable that replaces it
PART_BYTES = 32 << 20  # of a large file on S3, which goes up in parts; S3 takes none below 5 MiB
# One request. The S3 client and s3fs would each try five times more, for 25 minutes in all with their own time limits,
# and hide from a conditional put that it was tried before: trying again is done here alone.
_S3 = {"connect_timeout": 5, "read_timeout": 20, "retries": {"total_max_attempts": 1, "mode": "standard"}}


@dataclass(frozen=True)
class FileInfo:
    """A file below a URL."""

    url: str
    size: int  # bytes
    version: str = ""  # another one where the content was written anew: a checksum, an ETag or a time; "" if not told


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a URL and the path in it."""
    try:
        if url.startswith(("s3://", "s3a://")):
            given = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
            fs, path = fsspec.url_to_fs(url, config_kwargs={**_S3, **given})
            fs.retries = 1
        else:
            fs, path = fsspec.url_to_fs(os.path.expanduser(url) if "://" not in url else url)
    except ImportError as error:
        raise UserError(f"{url}: the package for this kind of storage is missing: {error}") from None
    except ValueError as error:
        raise UserError(f"{url}: not a path or URL that can be read: {error}") from None
    return fs, path


def join(url: str, *parts: str) -> str:
    """Return the URL below ``url``."""
    return posixpath.join(url, *parts)


def absolute(url: str) -> str:
    """Return a path that holds wherever workers start; URLs stay as they are."""
    return url.rstrip("/") if "://" in url else os.path.abspath(os.path.expanduser(url))


def last_name(url: str) -> str:
    """Return the last name of a path or URL."""
    return url.rstrip("/").rpartition("/")[2]


def is_local(url: str) -> bool:
    """Tell whether a URL is a path on this machine's own file system."""
    return isinstance(filesystem(url)[0], LocalFileSystem)


def exists(url: str) -> bool:
    """Tell whether there is a file or folder at a URL."""
    fs, path = filesystem(url)
    return patiently(url, lambda: bool(fs.exists(path)))


def read_bytes(url: str) -> bytes:
    """Return a file's bytes; a missing file is a :class:`FileNotFoundError`."""
    fs, path = filesystem(url)
    # Else s3fs asks for the size first, and lists the folder where there is no such file.
    how = {"max_concurrency": 1} if _is_s3(fs) else {}
    return patiently(url, lambda: fs.cat_file(path, **how))


def read_small(url: str, most: int) -> bytes | None:
    """Return the bytes of a file that is smaller than ``most``, else ``None``; only where that is one request."""
    fs, path = filesystem(url)
    if not _is_s3(fs):
        return None
    data = patiently(url, lambda: fs.cat_file(path, start=-most))
    return data if len(data) < most else None


def read_if_present(url: str) -> bytes | None:
    """Return a file's bytes, or ``None`` where there is none."""
    try:
        return read_bytes(url)
    except (FileNotFoundError, NotADirectoryError):
        return None


def open_read(url: str, *, exact: bool = False) -> BinaryIO:
    """Open a file for reading at any place in it; ``exact`` fetches what is asked for, else more is fetched ahead.

    What is read of it is not tried again: see :func:`patiently`.
    """
    fs, path = filesystem(url)
    how = {"cache_type": "none"} if exact and _is_s3(fs) else {}
    return patiently(url, lambda: fs.open(path, "rb", **how))


def write_bytes(url: str, data: bytes) -> None:
    """Write a file whole, over one that is there."""
    fs, path = filesystem(url)
    if isinstance(fs, LocalFileSystem):
        patiently(url, lambda: _write_local(Path(path), [data], only_if_absent=False))
    else:
        patiently(url, lambda: fs.pipe_file(path, data, **_parts(fs)))


def write_chunks(url: str, chunks: Callable[[], Iterable[bytes]]) -> None:
    """Write a file of what is given in pieces; ``chunks`` is called again where the storage must be tried again.

    Elsewhere than on local disk an error may leave a part of the file behind.
    """
    fs, path = filesystem(url)

    def write() -> None:
        with fs.open(path, "wb", block_size=PART_BYTES) as out:
            for chunk in chunks():
                out.write(chunk)

    if isinstance(fs, LocalFileSystem):
        patiently(url, lambda: _write_local(Path(path), chunks(), only_if_absent=False))
    else:
        patiently(url, write)


def put_if_absent(url: str, data: bytes) -> bool:
    """Write a file whole unless one is there; tell whether it was written.

    Of several writers at once exactly one wins: on local disk by a hard link, which fails if the name exists;
    on object stores by a conditional put (``If-None-Match: *``). There writers of the very same bytes may all be told
    that they wrote them, so one who must be the only one puts something of its own in.
    """
    fs, path = filesystem(url)
    if isinstance(fs, LocalFileSystem):
        return patiently(url, lambda: _write_local(Path(path), [data], only_if_absent=True))

    def put() -> bool:
        try:
            fs.pipe_file(path, data, mode="create", **_parts(fs))
        except FileExistsError:
            return False
        except OSError as error:
            if _error_code(error) == "PreconditionFailed":
                return False
            raise
        return True

    # An answer may be lost after the file was written, and the put made again, by aiohttp even unasked: what is there
    # then is this writer's own.
    return patiently(url, put) or read_if_present(url) == data


def _is_s3(fs: fsspec.AbstractFileSystem) -> bool:
    return "s3" in fs.protocol


def _parts(fs: fsspec.AbstractFileSystem) -> dict[str, int]:
    """Return the size of the parts in which a file of at least two of them goes up."""
    return {"chunksize": PART_BYTES} if _is_s3(fs) else {}


def _response(error: BaseException) -> Mapping[str, Any]:
    """Return what an object store answered; s3fs keeps the client's error as the cause."""
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    return response if isinstance(response, Mapping) else {}


def _error_code(error: BaseException) -> str:
    """Return an object store's own code."""
    return _response(error).get("Error", {}).get("Code", "")


def remove(url: str) -> None:
    """Remove a file or a folder with all below it; one that is not there is no error."""
    fs, path = filesystem(url)
    with contextlib.suppress(FileNotFoundError):
        patiently(url, lambda: fs.rm(path, recursive=True))


def remove_file(url: str) -> None:
    """Remove one file, by one request; one that is not there is no error."""
    fs, path = filesystem(url)
    with contextlib.suppress(FileNotFoundError):
        patiently(url, lambda: fs.rm_file(path))


def list_names(url: str) -> list[str]:
    """Return the names directly below a URL, sorted; none where there is no such folder."""
    fs, path = filesystem(url)
    fs.invalidate_cache(path)
    try:
        inner = (p.rstrip("/") for p in patiently(url, lambda: fs.ls(path, detail=False)))
        return sorted(posixpath.basename(p) for p in inner if p != path.rstrip("/"))  # a file lists itself
    except (FileNotFoundError, NotADirectoryError):
        return []
    finally:
        # Else a file that another process puts later is taken for absent, also when it is read by its name.
        fs.invalidate_cache(path)


def walk(url: str) -> Iterator[FileInfo]:
    """Give every file below a folder, or the file itself, in the order of their paths."""
    fs, path = filesystem(url)
    for info in _file_or_below(url, fs, path):
        inner = info["name"]
        whole = fs.unstrip_protocol(inner) if "://" in url else inner
        yield FileInfo(whole, int(info.get("size") or 0), _version(info))


def _file_or_below(url: str, fs: fsspec.AbstractFileSystem, path: str) -> Iterator[dict[str, Any]]:
    with contextlib.suppress(FileNotFoundError):
        # Not by `isfile`, which takes any error for a no.
        info = patiently(url, lambda: fs.info(path))
        if info["type"] == "file":
            yield info
            return
    yield from _below(url, fs, path)


def _below(url: str, fs: fsspec.AbstractFileSystem, folder: str) -> Iterator[dict[str, Any]]:
    """Give what the storage says of each file below a folder: its own, then folder by folder.

    Unlike fsspec's walk, which passes over folders that cannot be listed, so that files would be missed in silence.
    """
    try:
        listed = patiently(url, lambda: fs.ls(folder, detail=True))
    except FileNotFoundError:
        return
    # Object stores may list a folder's marker as a file in it.
    inner = sorted((i for i in listed if i["name"].rstrip("/") != folder.rstrip("/")), key=lambda info: info["name"])
    yield from (info for info in inner if info["type"] != "directory")
    for info in inner:
        if info["type"] == "directory":
            yield from _below(url, fs, info["name"].rstrip("/"))


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


def patiently(url: str, act: Callable[[], T]) -> T:
    """Return what ``act`` gives, which asks the storage of a URL; it may be called several times.

    A storage that does not answer, breaks off or says that it is busy (time-outs, resets, cut answers, 429, 5xx) is
    tried again for ``GRISTMILL_STORAGE_SECONDS``, from begin to end of all tries.

    Raises:
        UserError: the storage cannot be reached in that time, refuses access, or has no space left.
    """
    begun, tries = time.monotonic(), 0
    while True:
        with _told(url):
            try:
                return act()
            except Exception as error:
                spent, limit = time.monotonic() - begun, min(seconds(SETTING, SECONDS, none=True), _patience.get())
                if not _passes(error):
                    raise
                if spent >= limit:
                    raise UserError(
                        f"{url}: the storage cannot be reached: it gave no good answer for {spent:.0f} s (at most "
                        f"{SETTING}), at last: {_line(error)}"
                    ) from None
        # Many workers must not come back at one moment.
        pause = min(0.1 * 2**tries, 5.0) * random.uniform(0.5, 1.0)
        time.sleep(max(0.0, min(pause, limit - spent)))
        tries = min(tries + 1, 10)


_FLEETING = {  # classes of client libraries, by name: this room imports none of them
    "botocore": {
        "ConnectionError",
        "HTTPClientError",
        "IncompleteReadError",
        "ResponseStreamingError",
        "ResponseParserError",
    },
    "aiohttp": {"ClientConnectionError", "ClientPayloadError"},
    "fsspec": {"FSTimeoutError"},
}
# SlowDown and InternalError come as 5xx; the last three tell of an upload that did not come whole.
_BUSY = {"ConditionalRequestConflict", "RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch"}


def _passes(error: BaseException) -> bool:
    """Tell whether an error of a storage that is not this machine's own may be gone at the next try."""
    for kind in type(error).__mro__:
        if kind.__name__ in _FLEETING.get(kind.__module__.split(".")[0], ()):
            return True
    status = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode") or getattr(error, "status", 0)
    if isinstance(status, int) and (status == 429 or status >= 500):
        return True
    return isinstance(error, ConnectionError | TimeoutError) or _error_code(error) in _BUSY


@contextlib.contextmanager
def patience(limit: float) -> Iterator[None]:
    """Try again no longer than ``limit`` seconds, in this thread."""
    before = _patience.set(limit)
    try:
        yield
    finally:
        _patience.reset(before)


_patience: contextvars.ContextVar[float] = contextvars.ContextVar("patience", default=float("inf"))


def _line(error: BaseException) -> str:
    return (one_line(error) or type(error).__name__)[:300]


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


def _write_local(path: Path, chunks: Iterable[bytes], *, only_if_absent: bool) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".part-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as out:
            out.writelines(chunks)
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
