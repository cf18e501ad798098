"""``gristmill audit``: the audit of all sets and artifacts, and of the files that a run keeps beside them."""

from __future__ import annotations

from collections.abc import Iterator

from gristmill.pipelines.command.planfile import read_plan
from gristmill.pipelines.config import read_saved
from gristmill.pipelines.ledger import LEDGER, read_ledger
from gristmill.pipelines.report.files import read_identity
from gristmill.shards import store
from gristmill.shards.audit import AuditResult, audit_below
from gristmill.shards.errors import Damaged
from gristmill.shards.finding import find_below


def audit_output(out: str) -> Iterator[AuditResult]:
    """Audit all that lies below an output; what is wrong with the run's own files comes last, as one result.

    Raises:
        UserError: there is no sealed set.
    """
    found = find_below(out)
    yield from audit_below(out, found)
    faults = damaged_files(out)
    gaps = [f"{error.url}: {error.fault}" for error in faults]
    if not any(store.last_name(error.url) == LEDGER for error in faults):
        there = {*(sealed.url for sealed in found.sealed), *found.artifacts, *found.unreadable, *found.cleaned}
        gaps += [
            f"{LEDGER}: {entry['name']} was made in {entry['path']}, and is not there"
            for entry in (read_ledger(out) or {"made": ()})["made"]
            if store.join(out, entry["path"]) not in there
        ]
    if gaps:
        yield AuditResult(store.last_name(out), out, "", gaps=gaps)


def damaged_files(out: str) -> list[Damaged]:
    """Return what is wrong with the files that a run keeps beside its sets: settings, estimate, ledger and report."""
    faults = []
    for read in (read_saved, read_plan, read_ledger, read_identity):
        try:
            read(out)
        except Damaged as error:
            faults.append(error)
    return faults
