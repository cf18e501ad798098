"""Bytes at a URL: local paths and any fsspec storage, with the operation that commits rest on, put if absent."""

from __future__ import annotations

import contextlib
import contextvars
import os
import posixpath
import random
import time
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from gristmill.shards import disk
from gristmill.shards.environment import seconds
from gristmill.shards.errors import GristmillError, UserError
from gristmill.shards.faults import error_code, explained, in_short, is_transient
from gristmill.shards.safe_text import control_in

T = TypeVar("T")

SECONDS = 120.0  # of retries while a storage is down or refuses requests
SETTING = "GRISTMILL_STORAGE_SECONDS"  # environment variable that overrides it
PART_BYTES = 32 << 20  # of a multipart upload to S3, which accepts no part below 5 MiB
# A single attempt. The S3 client and s3fs would each retry five times, for 25 minutes in all with their own time-outs,
# and hide from a conditional put that it was tried before: only this module retries.
_S3 = {"connect_timeout": 5, "read_timeout": 20, "retries": {"total_max_attempts": 1, "mode": "standard"}}


Place = str | os.PathLike[str]  # a path or URL, as a user gives it


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a URL and the path in it."""
    try:
        if url.startswith(("s3://", "s3a://")):
            given = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
            fs, path = fsspec.url_to_fs(url, config_kwargs={**_S3, **given})
            fs.retries = 1
        elif "://" not in url:
            # Not by fsspec's parser, which takes "::" in a name for a chain of protocols, and "a" for "/data/a::b".
            fs = fsspec.filesystem("file")
            path = str(fs._strip_protocol(os.path.expanduser(url)))
        else:
            fs, path = fsspec.url_to_fs(url)
    except ImportError as error:
        raise UserError(f"{url}: the package for this kind of storage is missing: {error}") from None
    except ValueError as error:
        raise UserError(f"{url}: not a valid path or URL: {error}") from None
    return fs, path


def join(url: str, *parts: str) -> str:
    """Return the URL below ``url``.

    Raises:
        GristmillError: a part leads elsewhere. Names read from stored files may not.
    """
    for part in parts:
        if part.startswith("/") or ".." in part.split("/") or ("::" in part and "://" in url):
            raise GristmillError(f"{url}: names {part}, which is not below it; it is damaged, or not to be trusted")
    return posixpath.join(url, *parts)


def absolute(url: Place) -> str:
    """Return an absolute path, valid in any worker's directory; URLs stay as they are.

    Raises:
        UserError: the path or URL has a control character.
    """
    url = os.fspath(url)
    if found := control_in(url):
        raise UserError(f"{url}: holds the control character {found}; expected a path or URL without it")
    return url.rstrip("/") if "://" in url else os.path.abspath(os.path.expanduser(url))


def last_name(url: str) -> str:
    """Return the last name of a path or URL."""
    return url.rstrip("/").rpartition("/")[2]


def bare(url: str) -> str:
    """Return a URL without the query of a web server, which may be the signature of a presigned one.

    Example:
        >>> bare("https://host/a.wav?X-Amz-Signature=1"), bare("s3://bucket/why?.wav")
        ('https://host/a.wav', 's3://bucket/why?.wav')
    """
    return url.partition("?")[0] if url.startswith(("http://", "https://")) else url


def is_local(url: str) -> bool:
    """Return whether a URL is a path on this machine's file system."""
    return isinstance(filesystem(url)[0], LocalFileSystem)


def is_within(url: str, folder: str) -> bool:
    """Return whether a URL is that of a folder, or lies below it; local links are followed.

    Example:
        >>> is_within("s3://bucket/calls/heard", "s3://bucket/calls"), is_within("s3://bucket/calls2", "s3://bucket/calls")
        (True, False)
    """
    inner, outer = (os.path.realpath(filesystem(one)[1]) if is_local(one) else one for one in (url, folder))
    return f"{inner.rstrip('/')}/".startswith(f"{outer.rstrip('/')}/")


def exists(url: str) -> bool:
    """Return whether there is a file or folder at a URL."""
    fs, path = filesystem(url)
    return patiently(url, lambda: bool(fs.exists(path)))


def is_taken(url: str) -> bool:
    """Return whether something lies at a URL, if only a link to nothing."""
    fs, path = filesystem(url)
    return os.path.lexists(path) if isinstance(fs, LocalFileSystem) else exists(url)


def read_bytes(url: str) -> bytes:
    """Return a file's bytes; a missing file raises :class:`FileNotFoundError`."""
    fs, path = filesystem(url)
    # Otherwise s3fs asks for the size first, and lists the folder if there is no such file.
    how = {"max_concurrency": 1} if _is_s3(fs) else {}
    return patiently(url, lambda: fs.cat_file(path, **how))


class FileTooLarge(UserError):
    """A file that has to be held in memory is larger than any sensible one of its kind."""


def read_limited(url: str, most: int) -> bytes:
    """Return the bytes of a file from outside that has to be held in memory; no more than ``most`` are read.

    Raises:
        FileNotFoundError: there is no such file.
        FileTooLarge: it has more bytes.
    """
    fs, path = filesystem(url)

    def read() -> bytes:
        try:
            return fs.cat_file(path, start=0, end=most + 1)
        except OSError as error:
            if error_code(error) == "InvalidRange":  # of an empty object
                return b""
            raise

    data = patiently(url, read)
    if len(data) > most:
        raise FileTooLarge(f"{url}: has more than {most} bytes; expected at most that in a file of this kind")
    return data


def read_pieces(url: str, size: int = 1 << 20) -> Iterator[bytes]:
    """Yield a file's bytes in pieces, so that memory holds one."""
    with open_read(url) as source:
        place = 0

        def read() -> bytes:
            source.seek(place)
            return source.read(size)

        while piece := patiently(url, read):
            place += len(piece)
            yield piece


def read_if_present(url: str) -> bytes | None:
    """Return a file's bytes, or ``None`` if there is no such file."""
    try:
        return read_bytes(url)
    except FileNotFoundError:
        return None


def open_read(url: str, *, exact: bool = False) -> BinaryIO:
    """Open a file for random-access reading; ``exact`` turns off read-ahead on S3.

    Reads from it are not retried: see :func:`patiently`.
    """
    fs, path = filesystem(url)
    how = {"cache_type": "none"} if exact and _is_s3(fs) else {}
    return patiently(url, lambda: fs.open(path, "rb", **how))


def write_bytes(url: str, data: bytes) -> None:
    """Write a whole file, replacing an existing one."""
    fs, path = filesystem(url)
    if isinstance(fs, LocalFileSystem):
        patiently(url, lambda: disk.write(path, lambda: [data]))
    else:
        patiently(url, lambda: fs.pipe_file(path, data, **_parts(fs)))


def write_changed(url: str, data: bytes) -> bool:
    """Write a whole file unless it is there unchanged; return whether it was written."""
    if read_if_present(url) == data:
        return False
    write_bytes(url, data)
    return True


def write_chunks(url: str, chunks: Callable[[], Iterable[bytes]]) -> None:
    """Write a whole file from chunks; ``chunks`` is called again for each retry. An error leaves no file behind."""
    fs, path = filesystem(url)

    def write() -> None:
        out = fs.open(path, "wb", block_size=PART_BYTES)
        try:
            for chunk in chunks():
                out.write(chunk)
        except BaseException:
            with contextlib.suppress(AttributeError):  # of a file in memory
                out.discard()
                out.closed = True  # otherwise it is stored as far as it was written
            raise
        out.close()

    if isinstance(fs, LocalFileSystem):
        patiently(url, lambda: disk.write(path, chunks))
    else:
        patiently(url, write)


def put_if_absent(url: str, data: bytes) -> bool:
    """Write a whole file unless one exists; return whether it was written.

    Of several concurrent writers exactly one wins: on local disk see :func:`gristmill.shards.disk.put`, on object
    stores by a conditional put (``If-None-Match: *``). There, all writers of identical bytes may get ``True``, so a
    writer that must be the only one makes its bytes unique.

    Example:
        >>> put_if_absent("made/a", b"1"), put_if_absent("made/a", b"2"), read_bytes("made/a")
        (True, False, b'1')
    """
    fs, path = filesystem(url)
    if isinstance(fs, LocalFileSystem):
        return patiently(url, lambda: disk.put(path, lambda: [data]))

    def put() -> bool:
        try:
            fs.pipe_file(path, data, mode="create", **_parts(fs))
        except FileExistsError:
            return False
        except OSError as error:
            if error_code(error) == "PreconditionFailed":
                return False
            raise
        return True

    # A response may be lost after the file was written, and the put retried (aiohttp does so on its own): the file
    # found then is this writer's.
    return patiently(url, put) or read_if_present(url) == data


def _is_s3(fs: fsspec.AbstractFileSystem) -> bool:
    return "s3" in fs.protocol


def _parts(fs: fsspec.AbstractFileSystem) -> dict[str, int]:
    """Return the part size for multipart uploads, which need at least two parts."""
    return {"chunksize": PART_BYTES} if _is_s3(fs) else {}


def remove(url: str) -> None:
    """Remove a file, or a folder with its contents; a missing one is no error."""
    fs, path = filesystem(url)
    with contextlib.suppress(FileNotFoundError):
        patiently(url, lambda: fs.rm(path, recursive=True))


def remove_file(url: str) -> None:
    """Remove one file, in one request; a missing one is no error."""
    fs, path = filesystem(url)
    with contextlib.suppress(FileNotFoundError):
        patiently(url, lambda: fs.rm_file(path))


def move_file(url: str, to: str) -> None:
    """Move a file, or what lies in its place; a file that lies at the new place is replaced."""
    fs, path = filesystem(url)
    where = filesystem(to)[1]
    if isinstance(fs, LocalFileSystem):
        os.makedirs(os.path.dirname(where), exist_ok=True)
    patiently(url, lambda: fs.mv(path, where))


def move_folder(url: str, to: str) -> None:
    """Move a folder with its contents to an unused place beside it: on local disk at once."""
    fs, path = filesystem(url)
    patiently(url, lambda: fs.mv(path, filesystem(to)[1], recursive=True))


def sweep(url: str) -> None:
    """Remove what writers that died left half-written below a folder of this machine; elsewhere nothing is seen of it.

    See :func:`gristmill.shards.disk.sweep` for what live writers are spared.
    """
    fs, path = filesystem(url)
    if isinstance(fs, LocalFileSystem):
        disk.sweep(path)


def list_names(url: str) -> list[str]:
    """Return the names directly below a URL, sorted; none if there is no such folder."""
    fs, path = filesystem(url)
    fs.invalidate_cache(path)
    try:
        inner = (p.rstrip("/") for p in patiently(url, lambda: fs.ls(path, detail=False)))
        return sorted(posixpath.basename(p) for p in inner if p != path.rstrip("/"))  # a file lists itself
    except FileNotFoundError:
        return []
    finally:
        # Otherwise a file that another process puts later would seem absent, even when read by name.
        fs.invalidate_cache(path)


def list_sizes(url: str) -> dict[str, int]:
    """Return the bytes of each file directly below a URL, by name; none if there is no such folder."""
    fs, path = filesystem(url)
    fs.invalidate_cache(path)
    try:
        found = patiently(url, lambda: fs.ls(path, detail=True))
        return {last_name(info["name"]): int(info.get("size") or 0) for info in found if info["type"] == "file"}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    finally:
        fs.invalidate_cache(path)


def patiently(url: str, act: Callable[[], T]) -> T:
    """Return the result of ``act``, a request to the storage of a URL, with retries.

    Transient errors (time-outs, resets, truncated responses, 429, 5xx) are retried for
    ``GRISTMILL_STORAGE_SECONDS``, counted from the first attempt.

    Raises:
        UserError: the storage cannot be reached in that time, refuses access, or has no space left.
    """
    begun, tries = time.monotonic(), 0
    while True:
        with explained(url):
            try:
                return act()
            except Exception as error:
                spent, limit = time.monotonic() - begun, min(seconds(SETTING, SECONDS, none=True), _patience.get())
                if not is_transient(error):
                    raise
                if spent >= limit:
                    raise UserError(
                        f"{url}: the storage cannot be reached: no successful response for {spent:.0f} s (at most "
                        f"{SETTING}), last error: {in_short(error)}"
                    ) from None
        # Jitter: many workers must not retry at the same moment.
        pause = min(0.1 * 2**tries, 5.0) * random.uniform(0.5, 1.0)
        time.sleep(max(0.0, min(pause, limit - spent)))
        tries = min(tries + 1, 10)


@contextlib.contextmanager
def patience(limit: float) -> Iterator[None]:
    """Limit retries to ``limit`` seconds, in this thread."""
    before = _patience.set(limit)
    try:
        yield
    finally:
        _patience.reset(before)


_patience: contextvars.ContextVar[float] = contextvars.ContextVar("patience", default=float("inf"))
