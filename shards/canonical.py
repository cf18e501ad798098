"""One canonical serialisation of each value, so that digests compare content."""

from __future__ import annotations

import hashlib
import json
from typing import Any

FORMAT = 2  # of stored files: their names, checksums and Parquet options


def dumps(value: Any) -> bytes:
    """Return JSON with sorted keys and no spaces; floats in Python's shortest form."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def fingerprint(identity: Any) -> str:
    """Return the digest of what a result depends on, and of the format of stored files: a version of this project with
    another format makes results anew, in folders of their own."""
    return digest([FORMAT, identity])


def sha256(data: bytes | memoryview) -> str:
    """Return the SHA-256 of bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value's canonical form."""
    return sha256(dumps(value))
