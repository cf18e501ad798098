"""Stored bytes are compared with their digests before a value of them is used.

A file named by a receipt, a seal or an artifact is compared with the digest they hold. The small JSON files that hold
those digests carry one of their own, over every byte that follows it and over their kind, so that neither a flipped
bit nor an exchanged file is read as something else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from fsspec.implementations.local import LocalFileSystem
from pydantic import TypeAdapter, ValidationError

from gristmill.shards import canonical, disk, store
from gristmill.shards.errors import Damaged

T = TypeVar("T")

_HEAD, _TAIL = b'{"check":"', b'",'
_HEX = 64  # characters of a SHA-256
_PIECE = 8 << 20  # bytes
_OBJECT: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])


def encode(kind: str, value: Mapping[str, Any]) -> bytes:
    """Return a JSON object's canonical form with a checksum as its first key.

    Example:
        >>> data = encode("plan", {"rows": 2})
        >>> decode("plan", data, "made/plan.json")
        {'rows': 2}
    """
    body = canonical.dumps(value)
    return _HEAD + _check(kind, body).encode() + _TAIL + body[1:]


def is_encoded(data: bytes) -> bool:
    """Return whether bytes begin as those of :func:`encode`; they may be damaged."""
    return data.startswith(_HEAD)


def decode(kind: str, data: bytes, url: str) -> dict[str, Any]:
    """Return the object that :func:`encode` wrote.

    Raises:
        Damaged: the bytes are not those that were written, or are of another kind of file.
    """
    return _shaped(kind, _body(kind, data, url), url, _OBJECT)


def decode_as(kind: str, data: bytes, url: str, shape: TypeAdapter[T]) -> T:
    """Return the value that :func:`encode` wrote, if it has the shape of its kind.

    Raises:
        Damaged: as :func:`decode`, and for another shape. The checksum has no key: whoever made the file made it fit.
    """
    return _shaped(kind, _body(kind, data, url), url, shape)


def _body(kind: str, data: bytes, url: str) -> bytes:
    start = len(_HEAD) + _HEX + len(_TAIL)
    body = b"{" + data[start:]
    if data[:start] != _HEAD + _check(kind, body).encode() + _TAIL:
        raise Damaged(url, f"its contents do not match their checksum (damaged {kind}, or of an earlier version)")
    return body


def _shaped(kind: str, body: bytes, url: str, shape: TypeAdapter[T]) -> T:
    try:
        return shape.validate_python(json.loads(body))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))[:80]
        raise Damaged(url, f"is no {kind}" + (f" ({place}: {first['msg'].lower()})" if place else "")) from None
    except (ValueError, RecursionError):
        raise Damaged(url, f"is no {kind}") from None


def _check(kind: str, body: bytes) -> str:
    return canonical.sha256(kind.encode() + b"\n" + body)


def read(kind: str, url: str) -> dict[str, Any] | None:
    """Return the object at a URL, or ``None`` if there is no such file.

    Raises:
        Damaged: as :func:`decode`.
    """
    return read_as(kind, url, _OBJECT)


def read_as(kind: str, url: str, shape: TypeAdapter[T]) -> T | None:
    """Return the value at a URL, or ``None`` if there is no such file.

    Raises:
        Damaged: as :func:`decode_as`.
    """
    data = present(url)
    return None if data is None else decode_as(kind, data, url, shape)


def present(url: str) -> bytes | None:
    """Return the bytes of a file that a run writes, or ``None`` if there is no such file.

    Raises:
        Damaged: something else than a file lies in its place, such as a folder, a pipe, or a link to nothing.
    """
    refuse_irregular(url)
    return store.read_if_present(url)


def refuse_irregular(url: str) -> None:
    """Raise :class:`~gristmill.shards.errors.Damaged` if something else than a file lies in a file's place."""
    fs, path = store.filesystem(url)
    if isinstance(fs, LocalFileSystem) and (fault := disk.irregular(path)) is not None:
        raise Damaged(url, fault)


def compare(data: bytes, sha256: str, url: str, size: int | None = None) -> bytes:
    """Return the bytes of a file if they are those that were committed.

    Raises:
        Damaged: they are not.
    """
    if size is not None and len(data) != size:
        raise Damaged(url, f"holds {len(data)} bytes, {size} were committed")
    found = canonical.sha256(data)
    if found != sha256:
        raise _other_bytes(url, found, sha256)
    return data


def _other_bytes(url: str, found: str, expected: str) -> Damaged:
    fault = f"its bytes are not those that were committed (sha256 {found[:12]}, expected {expected[:12]})"
    return Damaged(url, fault)


def check_file(url: str, sha256: str) -> None:
    """Compare a committed file of any size with its digest, without holding it; raises as :func:`read_file`."""
    refuse_irregular(url)
    found = hashlib.sha256()
    try:
        for piece in store.read_pieces(url, _PIECE):
            found.update(piece)
    except (FileNotFoundError, NotADirectoryError):
        raise Damaged(url, "the file is missing") from None
    if found.hexdigest() != sha256:
        raise _other_bytes(url, found.hexdigest(), sha256)


def find_faults(folder: str, files: Mapping[str, str]) -> list[Damaged]:
    """Return what is wrong with committed files, given by path below a folder with their SHA-256."""
    faults = []
    for path, sha256 in files.items():
        try:
            check_file(store.join(folder, path), sha256)
        except Damaged as error:
            faults.append(error)
    return faults


def read_file(url: str, sha256: str, size: int | None = None) -> bytes:
    """Return the bytes of a committed file.

    Raises:
        Damaged: it is missing, or its bytes are not those that were committed.
    """
    data = present(url)
    if data is None:
        raise Damaged(url, "the file is missing")
    return compare(data, sha256, url, size)
