"""What became of the seconds of a corpus, and the quality of its audio, for the report."""

from __future__ import annotations

from typing import Any

import numpy as np

from gristmill.actors.speech.quality import Quality
from gristmill.pipelines.report.report import NumberTable
from gristmill.pipelines.results import Trace
from gristmill.pipelines.run import Run
from gristmill.shards.dataset import SealedSet, open_sealed

PARTS = ("labelled", "unlabelled", "test", "transcribed")
CUTS = ("segments_unlabelled", "aligned_transcribed")  # recordings cut into utterances
_HOUR = 3600.0
_UNITS = {"snr_estimate": "SNR, dB", "clipped_share": "clipped samples, %", "bandwidth": "bandwidth, Hz"}


def measured(run: Run) -> list[NumberTable]:
    """Return the tables of recordings that were cut, and of measured audio, as far as the run made such sets."""
    cuts = [row for trace in run.trace if trace.name in CUTS for row in _kept(run, trace)]
    audible = {trace.name: open_sealed(trace.url) for trace in run.trace if trace.name in PARTS}
    judged = {name: made for name, made in audible.items() if "snr_estimate" in made.schema.names}
    made = []
    if cuts:
        note = "Dropped is what lies between utterances, is too short for one, or has no speech."
        made.append(NumberTable("Recordings cut into utterances", cuts, note))
    if judged:
        dropped = [row for trace in run.trace if trace.name in judged for row in _kept(run, trace)]
        note = "Dropped is what could not be read, has an unfit length, or was rejected for its quality."
        made.append(NumberTable("Utterances read and measured", dropped, note))
        rows = [row for name, one in judged.items() for row in _qualities(name, one)]
        note = "Of the utterances that were kept; SNR is an estimate, right to about 3 dB up to 20 dB."
        made.append(NumberTable("Quality of the audio", rows, note))
    return made


def _kept(run: Run, trace: Trace) -> list[dict[str, Any]]:
    """Return the row of a set that was made of recordings or utterances of known length; none of others."""
    before = next((one for one in run.trace if one.digest in trace.inputs[:1]), None)  # not its model
    made, source = open_sealed(trace.url), None if before is None else open_sealed(before.url)
    given = 0.0 if source is None else source.total("duration")
    if not given:
        return []
    kept = made.total("duration")
    lengths = _column(made, "duration")
    reasons = ", ".join(f"{reason}: {number:,}" for reason, number in sorted(made.seal["reasons"].items()))
    return [
        {
            "Set": trace.name,
            "hours given": given / _HOUR,
            "hours kept": kept / _HOUR,
            "seconds dropped": max(0.0, given - kept),
            "dropped, %": 100 * max(0.0, given - kept) / given,
            "utterances kept": made.records,
            "median length, s": float(np.median(lengths)) if len(lengths) else None,
            "rejected": reasons or None,
        }
    ]


def _qualities(name: str, made: SealedSet) -> list[dict[str, Any]]:
    rows = []
    for field in Quality.adds:
        values = _column(made, field.name) * (100 if field.name.endswith("_share") else 1)
        if len(values):
            low, middle, high = (float(value) for value in np.percentile(values, [5, 50, 95]))
            label = _UNITS.get(field.name, "speech, % of the frames")
            rows.append({"Set": name, "of": label, "5%": low, "median": middle, "95%": high, "utterances": len(values)})
    return rows


def _column(made: SealedSet, name: str) -> np.ndarray:
    """Return a column's values that are there, (n,) float64."""
    found = [table[name].drop_null().to_numpy() for table in made.tables([name])]
    return np.concatenate(found).astype(np.float64) if found else np.zeros(0)
