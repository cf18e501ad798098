"""What finished runs left: their sets, and the digests of all that they made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gristmill.shards.audit import audit_below
from gristmill.shards.dataset import SealedSet, open_sealed


def made(out: Path, name: str) -> SealedSet:
    """Return the set of a name, of which there is one."""
    (folder,) = (out / name).iterdir()
    return open_sealed(str(folder))


def rows(found: SealedSet) -> list[dict[str, Any]]:
    """Return the records of a set."""
    return [row for table in found.tables() for row in table.to_pylist()]


def digests(out: Path) -> set[tuple[str, str]]:
    """Return the digests of all sets and artifacts, by name; an audit has no gap."""
    audits = list(audit_below(str(out)))
    assert not [gap for audit in audits for gap in audit.gaps]
    trained = {
        (str(path.parent.relative_to(out)), json.loads(path.read_text())["digest"])
        for path in out.glob("*/*/artifact.json")
    }
    return {(audit.name, audit.digest) for audit in audits} | trained
