"""The report files of a finished recipe: ``report.json`` for tools and ``report.html`` for readers."""

from __future__ import annotations

from gristmill.pipelines.report.document import identity, to_json
from gristmill.pipelines.report.html import to_html
from gristmill.pipelines.report.report import Report
from gristmill.shards.store import join, read_if_present, write_bytes


def write_report(out: str, report: Report) -> bool:
    """Write ``report.json`` and ``report.html`` below a URL; return whether anything was written.

    A report with the same results as the existing one is not written, so that the measured times and library versions
    stay those of the run that did the work.
    """
    places = [join(out, name) for name in ("report.json", "report.html")]
    old = [read_if_present(place) or b"" for place in places]
    if identity(*old) == identity(to_json(report), b""):
        return False
    page = to_html(report).encode()
    # The page first: a run killed between the two rewrites both.
    write_bytes(places[1], page)
    write_bytes(places[0], to_json(report, page))
    return True
