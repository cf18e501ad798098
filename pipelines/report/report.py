"""The data of a report: metrics in one long table, and optional sections.

All recipes share one report; a recipe fills the sections it has data for, and chooses the names of systems, test sets
and measures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from gristmill.models.measures.calibration import Bin
from gristmill.pipelines.report.measures import Measure

# What intervals of a test set resample if there are few speakers, or none is known.
FEW_SPEAKERS = "utterances within speakers"
UNKNOWN_SPEAKERS = "utterances (their speakers are unknown)"
OF_UNKNOWN = "utterances of unknown speakers"  # a size
_COUNTS = ("records_in", "records_out", "rejected", "quarantined")


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One row of the long table.

    Fractions stay fractions. ``n`` is the sample size: the reference words of an error rate (so that rate x n is the
    count), the segments of a p-value.
    """

    system: str
    test_set: str
    metric: str
    value: float | None
    low: float | None  # bound of the 95 % interval
    high: float | None
    n: int
    seed: int | None  # of the training; None: over all seeds

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class TestSet:
    """The sizes of a test set, by unit, and the unit that its intervals resample."""

    __test__ = False  # not a pytest class

    sizes: Mapping[str, int] = field(default_factory=dict)
    resampled: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the test set as JSON values."""
        return {**self.sizes, **({"resampled": self.resampled} if self.resampled else {})}


@dataclass(frozen=True)
class CurvePoint:
    """One point of a training's curves: values by name at a step."""

    system: str
    seed: int
    step: int
    values: Mapping[str, float | None]
    phase: str = ""  # of a training that has several

    def to_json(self) -> dict[str, Any]:
        """Return the point as JSON values."""
        phase = {"phase": self.phase} if self.phase else {}
        return {"system": self.system, "seed": self.seed, **phase, **self.values, "step": self.step}


@dataclass(frozen=True)
class Spectrogram:
    """An image for the page; the JSON has only its size."""

    title: str
    values: np.ndarray  # (frames, bins), low bins first; any log scale
    hop: float  # seconds per frame
    caption: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return its size as JSON values."""
        return {"title": self.title, "frames": len(self.values), "hop": self.hop, "caption": self.caption}


@dataclass(frozen=True)
class Picture:
    """A drawing for the page, as SVG without scripts; the JSON has only its title."""

    title: str
    svg: str
    caption: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return its words as JSON values."""
        return {"title": self.title, "caption": self.caption}


@dataclass(frozen=True)
class Axis:
    """One axis of a grid: the setting that it varies, its label on the page, and its symbol in sentences."""

    name: str
    label: str = ""
    symbol: str = ""


@dataclass(frozen=True)
class Cell:
    """The value of a measure in one cell of a grid."""

    row: float | str
    column: float | str
    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Grid:
    """A measure over two settings."""

    title: str
    measure: Measure
    rows: Axis
    columns: Axis
    cells: Sequence[Cell]
    chosen: tuple[float | str, float | str] | None = None  # (row, column) of the recipe's own settings

    def to_json(self) -> dict[str, Any]:
        """Return the grid as JSON values; a cell's row and column are keyed by the axes' names."""
        cells = [
            {self.rows.name: c.row, self.columns.name: c.column, "value": c.value, "low": c.low, "high": c.high}
            for c in self.cells
        ]
        axes = {"rows": self.rows.name, "columns": self.columns.name}
        chosen = None if self.chosen is None else dict(zip(axes.values(), self.chosen, strict=True))
        return {"title": self.title, "metric": self.measure.name, **axes, "chosen": chosen, "cells": cells}


@dataclass(frozen=True)
class Diagram:
    """A reliability diagram of a system's scores, over all parts or of one (a domain, a language)."""

    system: str
    bins: Sequence[Bin]
    part: str | None = None


@dataclass(frozen=True)
class Reliability:
    """Reliability diagrams, and the nouns for their contents."""

    diagrams: Sequence[Diagram] = ()
    scored: str = "predictions"  # plural noun for the scored items
    part: str = "part"  # noun for a part

    def to_json(self) -> list[dict[str, Any]]:
        """Return one entry per diagram as JSON values."""
        return [
            {"system": one.system, self.part: one.part, "bins": [b._asdict() for b in one.bins]}
            for one in self.diagrams
        ]


@dataclass(frozen=True)
class NumberTable:
    """Numbers that a recipe measured of its sets: a row is a mapping of columns, of which the first names it."""

    title: str
    rows: Sequence[Mapping[str, Any]]
    note: str = ""
    curves: tuple[Curve, ...] = ()
    timed: bool = False  # times, which a rerun of the same work has otherwise


@dataclass(frozen=True)
class Curve:
    """What a table's numbers are drawn as: lines of ``y`` over ``x``, one for each value of ``by``, all columns."""

    x: str
    y: str
    by: str


@dataclass(frozen=True)
class FilterFlow:
    """The numbers of records that a filter kept and dropped, examples (columns by name), and other numbers."""

    name: str
    kept: int
    dropped: int
    examples_kept: Sequence[Mapping[str, Any]] = ()
    examples_dropped: Sequence[Mapping[str, Any]] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the filter as JSON values."""
        examples = {"kept": self.examples_kept, "dropped": self.examples_dropped}
        return {"name": self.name, "kept": self.kept, "dropped": self.dropped, **self.numbers, "examples": examples}


@dataclass(frozen=True)
class RecordFlow:
    """The fate of the records of a sealed set."""

    name: str
    digest: str
    records_in: int
    records_out: int
    rejected: int
    quarantined: int
    shards: int
    reasons: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of_seal(cls, seal: Mapping[str, Any]) -> RecordFlow:
        """Return the record flow of a seal, or of its summary, in which ``shards`` is a number."""
        shards = seal["shards"] if isinstance(seal["shards"], int) else len(seal["shards"])
        counts = {key: int(seal[key]) for key in _COUNTS}
        return cls(seal["name"], seal["digest"], **counts, shards=shards, reasons=dict(seal.get("reasons", {})))


@dataclass(frozen=True)
class LineageNode:
    """A sealed set or an artifact, and the names of its inputs."""

    name: str
    digest: str | None
    inputs: Sequence[str] = ()
    kind: str = "step"  # source, step, artifact, training
    rows: int | None = None
    bytes: int | None = None  # of its files
    seconds: float | None = None  # None: made before times were kept


@dataclass(frozen=True)
class Clip:
    """Some seconds of audio to listen to on the page; the JSON has only their number."""

    samples: np.ndarray  # (n,) in -1 to 1
    rate: int  # Hz

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.samples) / self.rate


@dataclass(frozen=True)
class ExampleTexts:
    """One record of a test set with the systems' outputs; a record may be in several test sets."""

    id: str
    test_set: str
    reference: str
    hypotheses: Mapping[str, str]  # by system
    audio: Clip | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the example as JSON values."""
        texts = {"reference": self.reference, "hypotheses": self.hypotheses}
        audio = None if self.audio is None else {"seconds": round(self.audio.seconds, 3)}
        return {"id": self.id, "test_set": self.test_set, **texts, "audio": audio}


@dataclass
class Use:
    """The best system that a command can use."""

    system: str
    model: str | None  # the folder of its model below the output, if it has one of its own
    command: str  # with OUT for the output
    why: str = ""  # how it stands to the other systems that could be used


@dataclass
class ToDo:
    """A file beside the report for its reader to work on."""

    file: str  # its path below the output
    what: str  # "5 requests to annotate"


@dataclass
class Report:
    """The content of the two files; empty sections are left out of the page."""

    title: str
    recipe: Mapping[str, Any]  # name and settings
    summary: str = ""  # one sentence; that of the verdict if empty
    measures: Sequence[Measure] = ()  # the first is shown in figures and decides the verdict
    baseline: str = ""  # the system that the others are compared with in figures and tables
    baselines: Sequence[str] = ()  # what the proposals are to be ahead of; by default the baseline
    headline: tuple[str, str] | None = None  # (system, test set) that matter most: the verdict begins with the set
    proposals: Sequence[str] = ()  # the systems of the recipe's method; by default the headline's
    labels: Mapping[str, str] = field(default_factory=dict)  # display names of systems, test sets and curves
    tested: str = ""  # content of test sets, in the verdict: "speech"
    metrics: Sequence[MetricRow] = ()
    test_sets: Mapping[str, TestSet] = field(default_factory=dict)
    curves: Sequence[CurvePoint] = ()
    explained: Mapping[str, str] = field(default_factory=dict)  # a sentence on a value of the curves, by its name
    spectrograms: Sequence[Spectrogram] = ()
    pictures: Sequence[Picture] = ()
    grids: Sequence[Grid] = ()
    reliability: Reliability = Reliability()
    filters: Sequence[FilterFlow] = ()
    measured: Sequence[NumberTable] = ()
    times: Callable[[], Sequence[NumberTable]] | None = None  # measures what is timed, only if the report is written
    records: list[RecordFlow] = field(default_factory=list)
    lineage: list[LineageNode] = field(default_factory=list)  # inputs first
    digests: dict[str, str] = field(default_factory=dict)
    # {"estimate": {...}, "actual": {...}}: numbers by name, or by step and then name; "results": how many the call that
    # was measured has made, of all.
    plan: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)  # seed, seeds and runner of the run that made it
    versions: Mapping[str, str] = field(default_factory=dict)
    examples: Sequence[ExampleTexts] = ()
    use: Use | None = None  # filled in when the run is over
    to_do: Sequence[ToDo] = ()
    notes: Sequence[str] = ()

    @property
    def main(self) -> Measure | None:
        """The measure shown in figures, which decides the verdict."""
        return self.measures[0] if self.measures else None

    @property
    def proposed(self) -> Sequence[str]:
        """The systems of the recipe's method."""
        return self.proposals or ([self.headline[0]] if self.headline else [])

    @property
    def compared(self) -> Sequence[str]:
        """The baselines of the verdict."""
        return self.baselines or ([self.baseline] if self.baseline else [])

    def find(self, system: str, test_set: str, metric: str, seed: int | None = None) -> MetricRow | None:
        """Return one row of the metrics."""
        wanted = (system, test_set, metric, seed)
        for row in self.metrics:
            if (row.system, row.test_set, row.metric, row.seed) == wanted:
                return row
        return None
