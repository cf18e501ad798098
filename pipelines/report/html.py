"""``report.html``: one self-contained page without scripts or external resources."""

from __future__ import annotations

from html import escape

from gristmill.pipelines.report.model_sections import (
    curves_section,
    examples_section,
    filters_section,
    pictures_section,
    reliability_section,
    spectrograms_section,
)
from gristmill.pipelines.report.provenance_sections import (
    lineage_section,
    measured_section,
    plan_section,
    recipe_section,
    records_section,
)
from gristmill.pipelines.report.report import Report
from gristmill.pipelines.report.results import grids_section, results_section
from gristmill.pipelines.report.style import CSS
from gristmill.pipelines.report.verdict import conclude, summary
from gristmill.pipelines.report.verdict_section import comparisons_section, facts, use


def to_html(report: Report) -> str:
    """Return the page. Sections without content are left out."""
    verdict = conclude(report)
    made = [
        ("results", "Results", results_section(report)),
        ("comparisons", "Against each baseline", comparisons_section(report, verdict)),
        ("reliability", "Calibration", reliability_section(report)),
        ("grids", "Sweep", grids_section(report)),
        ("training", "Training", curves_section(report)),
        ("spectrograms", "Spectrograms", spectrograms_section(report)),
        ("pictures", "Pictures", pictures_section(report)),
        ("filters", "Kept and dropped by filters", filters_section(report)),
        ("examples", "Examples", examples_section(report)),
        ("data", "Data", measured_section(report)),
        ("records", "Records", records_section(report)),
        ("plan", "Plan and actual", plan_section(report)),
        ("lineage", "Lineage", lineage_section(report)),
        ("recipe", "Recipe and versions", recipe_section(report)),
    ]
    made = [(key, name, body) for key, name, body in made if body]
    links = "".join(f'<a href="#{key}">{escape(name)}</a>' for key, name, _ in made)
    sections = "".join(
        f'<section aria-labelledby="{key}"><h2 id="{key}">{escape(name)}</h2>{body}</section>'
        for key, name, body in made
    )
    name = report.recipe.get("name")
    kicker = f"Gristmill report · {name}" if name else "Gristmill report"
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(report.title)}</title><style>{CSS}</style></head><body>"
        f'<header><p class="kicker">{escape(kicker)}</p><h1>{escape(report.title)}</h1>'
        f'<p class="lead">{escape(summary(report))}</p>{facts(report, verdict)}{use(report)}'
        f'<nav aria-label="Sections">{links}</nav></header><main>{sections}</main>'
        f"<footer><div>{''.join(f'<p>{escape(note)}</p>' for note in report.notes)}"
        "<p>All numbers of this page are in <code>report.json</code>, beside it.</p></div></footer></body></html>\n"
    )
