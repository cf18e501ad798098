"""What each system made of each record of the test sets: a set that lets later runs be compared record by record."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa

from gristmill.models.measures.wer import UNKNOWN
from gristmill.pipelines.ledger import read_ledger
from gristmill.pipelines.run import Run
from gristmill.shards import store
from gristmill.shards.dataset import SealedSet, find_sealed
from gristmill.shards.plan import nodes_in

SCORES = "scores"  # the set's name
Scale = Literal["linear", "log"]  # of a measure: errors / words, or the exponential of it (perplexity)
_ABOUT = b"scores"  # in the schema's metadata: the measure, its scale, and the columns' systems and seeds


class RecordCounts(Protocol):
    """Errors, or other additive counts, of each record."""

    @property
    def errors(self) -> np.ndarray:
        """The counts, (records,)."""
        ...

    @property
    def words(self) -> np.ndarray:
        """What they are divided by, (records,)."""
        ...

    @property
    def speakers(self) -> tuple[str, ...]:
        """The speaker of each record, (records,)."""
        ...

    @property
    def ids(self) -> tuple[str, ...]:
        """The records' ids, (records,)."""
        ...


Results = Mapping[str, Mapping[str, Mapping[int, RecordCounts]]]  # system, test set, training seed


@dataclass(frozen=True)
class RecordScores:
    """One system's counts on the records of one test set, in the order of their ids."""

    errors: np.ndarray
    words: np.ndarray
    speakers: tuple[str, ...]
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Stored:
    """The stored scores of a run."""

    measure: str
    scale: Scale
    results: Results


def keep_scores(
    run: Run, measure: str, results: Results, made_of: Mapping[str, Any], scale: Scale = "linear"
) -> SealedSet:
    """Seal the counts of the main measure: a row for each record of a test set, a column for each system and seed.

    A record may be in the test part of some seeds only (random splits); the other columns are null. ``made_of`` tells
    what the counts depend on: digests of the sets that were scored, and settings of scoring.
    """
    columns = list(dict.fromkeys((s, seed) for s, sets in results.items() for runs in sets.values() for seed in runs))
    about = {"measure": measure, "scale": scale, "columns": columns}
    identity = {**about, "made_of": made_of, "version": 1}
    made = run.source(SCORES, lambda: _rows(results, about), identity)
    for node in nodes_in(made):
        node.is_read = True  # by `gristmill compare`
    return made


def _rows(results: Results, about: Mapping[str, Any]) -> Iterator[pa.Table]:
    columns = about["columns"]
    rows: dict[tuple[str, str], dict[str, object]] = {}
    for system, by_set in results.items():
        for test_set, runs in by_set.items():
            for seed, one in runs.items():
                place = str(columns.index((system, seed)))
                given = zip(one.ids, one.speakers, one.words.tolist(), one.errors.tolist(), strict=True)
                for record, speaker, words, errors in given:
                    known = None if speaker.startswith(UNKNOWN) else speaker
                    row = rows.setdefault((test_set, record), {"speaker": known, "words": float(words)})
                    row[place] = float(errors)
    texts = [pa.field(name, pa.string()) for name in ("id", "test_set", "record", "speaker")]
    numbers = [pa.field(name, pa.float64()) for name in ("words", *map(str, range(len(columns))))]
    schema = pa.schema([*texts, *numbers], {_ABOUT: json.dumps(about).encode()})
    made = [
        {"id": f"{test_set}/{record}", "test_set": test_set, "record": record, **row}
        for (test_set, record), row in sorted(rows.items(), key=lambda one: one[0])
    ]
    yield pa.Table.from_pylist(made, schema=schema)


def read_scores(out: str) -> Stored | None:
    """Return the scores of the newest finished run under ``out``; ``None`` if it kept none."""
    made = [entry for entry in (read_ledger(out) or {"made": []})["made"] if entry["name"] == SCORES]
    sealed = find_sealed(store.join(out, made[-1]["path"])) if made else None
    if sealed is None:
        return None
    about = json.loads((sealed.schema.metadata or {})[_ABOUT])
    table = pa.concat_tables(sealed.tables())
    results: dict[str, dict[str, dict[int, RecordCounts]]] = {}
    for test_set in table["test_set"].unique().to_pylist():
        part = table.filter(pa.compute.equal(table["test_set"], test_set))
        for place, (system, seed) in enumerate(about["columns"]):
            own = part.filter(pa.compute.is_valid(part[str(place)]))
            if own.num_rows:
                ids = tuple(own["record"].to_pylist())
                names = zip(own["speaker"].to_pylist(), ids, strict=True)
                speakers = tuple(UNKNOWN + name if speaker is None else speaker for speaker, name in names)
                errors, words = (own[name].to_numpy() for name in (str(place), "words"))
                results.setdefault(system, {}).setdefault(test_set, {})[seed] = RecordScores(
                    errors, words, speakers, ids
                )
    return Stored(about["measure"], about["scale"], results)
