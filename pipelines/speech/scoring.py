"""Evaluation: every system transcribes every test set, and the transcripts are scored against the references."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from gristmill.actors.speech.features import rows_of
from gristmill.actors.speech.recognise import RecogniserSettings, recognition
from gristmill.models.measures.significance import wer_interval
from gristmill.models.measures.wer import WerResult, score
from gristmill.models.speech.decode import DecodingSettings
from gristmill.models.speech.features import METADATA_KEY, FeatureSettings
from gristmill.pipelines.report.measures import CER, DELETIONS, INSERTIONS, SUBSTITUTIONS, WER, Measure
from gristmill.pipelines.report.report import Axis, Cell, CurvePoint, Grid, Spectrogram
from gristmill.pipelines.run import Run
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.plan import later
from gristmill.shards.stage import Stage
from gristmill.shards.step import Step

Key = tuple[str, int]  # system, training seed
LABELS = {
    "teacher": "Clean teacher",
    "multicondition": "Multi-condition",
    "hard_labels": "Hard labels",
    "student": "Student",
    "student_seq": "Student + sequence",
    "clean": "Clean",
    "noisy": "Noisy",
    "rerecorded": "Re-recorded",
    "ctc": "CTC loss",
    "soft": "soft-target loss",
    "mwer": "expected word errors",
}
PHASES = {"student": ("all speech", "gold text")}  # of trainings with several
EXPLAINED = {
    "mwer": "Word errors of the n-best hypotheses, weighted by their probabilities, less their plain mean, for each "
    "reference word: below zero where the model prefers the better hypotheses. It is no word error rate."
}


def measures(main: Measure) -> list[Measure]:
    """Return the metrics of the report, an error rate first."""
    beside = [CER] if main == WER else []
    return [main, *beside, SUBSTITUTIONS, DELETIONS, INSERTIONS, main.relative()]


@dataclass(frozen=True)
class Transcripts:
    """Transcripts of models: for each test set a sealed set with a column per key."""

    sets: Mapping[str, SealedSet]
    models: Mapping[Key, Artifact]

    @property
    def columns(self) -> dict[Key, str]:
        """The column of each key."""
        return {key: "hypothesis_{}_{}".format(*first) for key, first in _firsts(self.models).items()}


def _firsts(models: Mapping[Key, Artifact]) -> dict[Key, Key]:
    """Return for each key the first of an equal model."""
    first: dict[str, Key] = {}
    return {key: first.setdefault(artifact.digest, key) for key, artifact in models.items()}


def transcribe(
    run: Run, name: str, tests: Mapping[str, SealedSet], models: Mapping[Key, Artifact], decoding: DecodingSettings
) -> Transcripts:
    """Transcribe each test set by each model. Equal models (a k above the vocabulary) are run once."""

    def recognised(models: Mapping[Key, Artifact]) -> Stage:
        refs = {"{}_{}".format(*key): models[key].ref for key in dict.fromkeys(_firsts(models).values())}
        return recognition(refs, RecogniserSettings(**dict(decoding)))

    stage = later(recognised, models)
    sets = {test: run.step(Step(f"{name}_{test}", (stage,), features)) for test, features in tests.items()}
    return Transcripts(sets, models)


def results(
    transcripts: Transcripts, normalise: str, others: Mapping[str, Mapping[Key, SealedSet]] | None = None
) -> dict[str, dict[str, dict[int, WerResult]]]:
    """Score systems on test sets; ``others`` has sets with a column ``hypothesis``, by test set and key.

    All systems are scored on the utterances that each of them has. Phones are scored without word boundaries.
    """
    out: dict[str, dict[str, dict[int, WerResult]]] = {}
    for test, sealed in transcripts.sets.items():
        columns = dict(transcripts.columns)
        table = pa.concat_tables(sealed.tables(["id", "text", "speaker", *dict.fromkeys(columns.values())]))
        for key, more in (others or {}).get(test, {}).items():
            columns[key] = "hypothesis_{}_{}".format(*key)
            extra = pa.concat_tables(more.tables(["id", "hypothesis"])).rename_columns(["id", columns[key]])
            table = table.join(extra, "id", join_type="inner")
        table = table.sort_by("id")
        references = _texts(table, "text", normalise)
        speakers = table["speaker"].to_pylist()
        for (system, seed), column in columns.items():
            texts = _texts(table, column, normalise)
            scored = score(references, texts, speakers, normalise=normalise, ids=table["id"].to_pylist())
            out.setdefault(system, {}).setdefault(test, {})[seed] = scored
    return out


def _texts(table: pa.Table, column: str, normalise: str) -> list[str]:
    texts = [text or "" for text in table[column].to_pylist()]
    if normalise != "phones":
        return texts
    from gristmill.actors.speech.teacher_hama import comparable

    return [" ".join(comparable(text.split())) for text in texts]


def spectrograms(tests: Mapping[str, SealedSet]) -> list[Spectrogram]:
    """Return the features of one utterance in each of the test sets."""
    heads = {name: first_rows(source, ["id", "features"]) for name, source in tests.items()}
    shared = set.intersection(*(set(head["id"].to_pylist()) for head in heads.values()))
    if not shared:
        return []
    out = []
    for name, head in heads.items():
        settings = FeatureSettings.from_json((tests[name].schema.metadata or {})[METADATA_KEY.encode()].decode())
        flat = rows_of(head["features"])[head["id"].to_pylist().index(min(shared))]
        out.append(
            Spectrogram(LABELS.get(name, name), flat.reshape(-1, settings.n_mels).astype("float32"), settings.hop_s)
        )
    return out


def first_rows(source: SealedSet, columns: list[str]) -> pa.Table:
    """Return the rows of the first shard that has any."""
    place = next((number for number, shard in enumerate(source.shards) if shard.rows), 0)
    return source.read(place, columns)


def curve(key: Key, model: Artifact) -> list[CurvePoint]:
    """Return the losses of a training for the report's curves."""
    points = json.loads(model.read("training.json"))["curves"]
    aside, phases = ("epoch", "lr", "phase", "step"), PHASES.get(key[0], ())
    return [
        CurvePoint(
            *key,
            p["step"],
            {name: v for name, v in p.items() if name not in aside},
            phases[p["phase"]] if p["phase"] < len(phases) else "",
        )
        for p in points
    ]


def grid(
    runs: Mapping[tuple[int, float], Mapping[int, WerResult]], measure: Measure, k: int, temperature: float
) -> Grid:
    """Return the error rates over k and temperature with intervals; ``k``, ``temperature`` are the recipe's own."""
    rates = {place: wer_interval(scored) for place, scored in runs.items()}
    return Grid(
        "k x temperature",
        measure,
        rows=Axis("temperature", symbol="T"),
        columns=Axis("k", "k, log-probabilities per frame"),
        cells=[Cell(t, k, rate.value, rate.low, rate.high) for (k, t), rate in rates.items()],
        chosen=(temperature, k),
    )
