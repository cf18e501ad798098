"""``gristmill audit``: the audit of all sets and artifacts, and of the files that a run keeps beside them."""

from __future__ import annotations

from collections.abc import Iterator

from gristmill.pipelines.command.launch import read_plan
from gristmill.pipelines.config import read_saved
from gristmill.pipelines.run import read_ledger
from gristmill.shards import store
from gristmill.shards.audit import AuditResult, audit_below
from gristmill.shards.errors import Damaged


def audit_output(out: str) -> Iterator[AuditResult]:
    """Audit all that lies below an output; what is wrong with the run's own files comes last, as one result.

    Raises:
        UserError: there is no sealed set.
    """
    seen: set[str] = set()
    yield from audit_below(out, seen)
    gaps = []
    for read in (read_saved, read_plan):
        try:
            read(out)
        except Damaged as error:
            gaps.append(f"{error.url}: {error.fault}")
    try:
        ledger = read_ledger(out)
        for entry in ledger["made"] if ledger else ():
            if store.join(out, entry["path"]) not in seen:
                gaps.append(f"run.json: {entry['name']} was made in {entry['path']}, and is not there")
    except Damaged as error:
        gaps.append(f"{error.url}: {error.fault}")
    if gaps:
        yield AuditResult(store.last_name(out), out, "", gaps=gaps)
