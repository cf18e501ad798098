"""Utterances of the test sets to listen to in the report, with what each system heard."""

from __future__ import annotations

from collections.abc import Mapping

from gristmill.actors.audio import audio_bytes, decode
from gristmill.pipelines.report.report import Clip, ExampleTexts
from gristmill.pipelines.speech.scoring import Transcripts, first_rows
from gristmill.shards.dataset import SealedSet

LONGEST = 10.0  # seconds of an utterance that can be heard


def examples(transcripts: Transcripts, tests: Mapping[str, SealedSet], count: int) -> list[ExampleTexts]:
    """Return the first utterances that all test sets have, with the transcripts by the systems of the first seed."""
    first = {system: column for (system, _), column in reversed(list(transcripts.columns.items()))}
    texts = {
        test: {row["id"]: row for row in first_rows(made, ["id", "text", *first.values()]).to_pylist()}
        for test, made in transcripts.sets.items()
    }
    order = next(iter(texts.values()))
    chosen = [name for name in order if all(name in rows for rows in texts.values())][:count]
    sounds = {test: _sounds(source, chosen) for test, source in tests.items()} if chosen else {}
    out = []
    for name in chosen:
        for test, rows in texts.items():
            given = {system: rows[name][first[system]] or "" for system, _ in transcripts.columns}
            sound = sounds.get(test, {}).get(name)
            out.append(ExampleTexts(name, test, rows[name]["text"] or "", given, sound))
    return out


def _sounds(source: SealedSet, chosen: list[str]) -> dict[str, Clip]:
    """Return the audio of those of the utterances that the first shard has."""
    table = first_rows(source, ["id", "audio"])
    made = {}
    for name, data in zip(table["id"].to_pylist(), audio_bytes(table), strict=True):
        if name in chosen and data is not None:
            samples, rate = decode(data)
            made[name] = Clip(samples[: int(LONGEST * rate)], rate)
    return made
