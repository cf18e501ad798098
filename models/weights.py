"""Metadata of safetensors files, read without the tensors. Nothing is ever unpickled."""

from __future__ import annotations

import json

from gristmill.shards.errors import UserError


def read_metadata(data: bytes, where: str = "checkpoint") -> dict[str, str]:
    """Return the metadata of safetensors bytes; other bytes are a ``UserError`` that names their kind and ``where``."""
    size = int.from_bytes(data[:8], "little")
    try:
        if len(data) > 8 and size <= len(data) - 8 and data[8:9] == b"{":
            return dict(json.loads(data[8 : 8 + size]).get("__metadata__") or {})
    except ValueError:
        raise UserError(f"{where}: its header cannot be read; expected a safetensors file") from None
    # Only now: the length that a safetensors file begins with may have the same first bytes.
    if data[:1] == b"\x80" or data[:2] == b"PK":
        raise UserError(f"{where}: a pickle, which can run code when loaded; expected a safetensors file")
    raise UserError(f"{where}: damaged or of another kind; expected a safetensors file")
