"""The report files of a finished recipe: ``report.json`` for tools and ``report.html`` for readers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from gristmill.pipelines.report.document import to_json
from gristmill.pipelines.report.files import PAGE, REPORT, identity, read_identity
from gristmill.pipelines.report.html import to_html
from gristmill.pipelines.report.report import Report
from gristmill.shards import checked
from gristmill.shards.errors import Damaged
from gristmill.shards.store import join, write_bytes


def write_report(out: str, report: Report, measure: Callable[[], None] | None = None) -> bool:
    """Write ``report.json`` and ``report.html`` below a URL; return whether anything was written.

    A report with the same results as the existing one is not written, so that the measured times and library versions
    stay those of the run that did the work. ``measure`` is called before one is written: it fills in what is no result.
    """
    places = [join(out, name) for name in (REPORT, PAGE)]
    for place in places:
        checked.refuse_irregular(place)
    with contextlib.suppress(Damaged):  # then it is written anew
        if read_identity(out) == identity(to_json(report), b""):
            return False
    if measure is not None:
        measure()
    if report.times is not None:
        report.measured = [*report.measured, *report.times()]
    page = to_html(report).encode()
    # The page first: a run killed between the two rewrites both.
    write_bytes(places[1], page)
    write_bytes(places[0], to_json(report, page))
    return True
