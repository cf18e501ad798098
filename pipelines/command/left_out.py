"""What a run tells at its end of records that it has left out: input that was rejected, and what is in quarantine."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from gristmill.pipelines.progress import plural
from gristmill.pipelines.results import Trace
from gristmill.shards.store import join

_REASONS = 2  # of a set, that are told
_LONGEST = 80  # characters of a reason


def left_out(out: str, traces: Iterable[Trace]) -> Iterator[str]:
    """Yield a sentence for each set of the output at ``out`` that has fewer records of the user's than it was given."""
    told = set()
    for trace in traces:
        if not trace.summary or trace.url in told:
            continue
        told.add(trace.url)
        place, given = shlex.quote(join(out, trace.name)), trace.summary["records_in"]
        if trace.unreadable:
            # Of records that become several ones, as a dialogue does, some are rejected whole and others in part.
            alike = trace.summary["rejected"] == sum(trace.summary["reasons"].values())
            count = f"{sum(trace.unreadable.values()):,}" + (f" of {plural(given, 'record')}" if alike else "")
            count += " of the input rejected"
            yield f"{trace.name}: {count} ({_most(trace)}); `gristmill inspect {place} --rejects` shows them"
        if trace.summary["quarantined"]:
            count = f"{plural(trace.summary['quarantined'], 'record')} of {given:,} made a stage fail"
            shown = f"`gristmill inspect {place} --quarantine` shows them, `gristmill requeue {shlex.quote(out)}`"
            yield f"{trace.name}: {count}; {shown} tries them again"


def _most(trace: Trace) -> str:
    """Return the most frequent reasons."""
    reasons = sorted(trace.unreadable.items(), key=lambda one: (-one[1], one[0]))
    listed = [f"{reason[:_LONGEST]}: {count:,}" for reason, count in reasons[:_REASONS]]
    return "; ".join([*listed, *(["..."] if len(reasons) > _REASONS else [])])
