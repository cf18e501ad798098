"""The files of a report, and whether they are as they were written; what reads them needs not what writes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from gristmill.shards import checked
from gristmill.shards.errors import Damaged
from gristmill.shards.store import join

REPORT, PAGE = "report.json", "report.html"


def read_identity(out: str) -> str | None:
    """Return the identity of the report below a URL, equal for equal results; ``None`` if there is none.

    Raises:
        Damaged: it is not as it was written.
    """
    data, page = (checked.present(join(out, name)) for name in (REPORT, PAGE))
    if data is None:
        return None
    found = identity(data, page or b"")
    if found is None:
        raise Damaged(join(out, REPORT), f"it or {PAGE} is not as it was written")
    return found


def identity(data: bytes, page: bytes) -> str | None:
    """Return the identity of a written report, equal for equal results; ``None`` if the files are not as written."""
    try:
        document = json.loads(data)
        if document.pop("checksum") != checksum(document, page):
            return None
        return document["identity"]
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return None


def checksum(document: Mapping[str, Any], page: bytes) -> str:
    """Return the checksum over a report's document, without its own, and its page."""
    whole = hashlib.sha256(json.dumps(document).encode())
    whole.update(page)
    return whole.hexdigest()
