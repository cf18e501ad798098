"""Digit strings: recordings of single words joined into utterances, by a plan drawn in advance.

The plan is small (pointers, no audio); an actor joins the audio.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from gristmill.actors.audio import RateSettings, audio_array, encode, resample
from gristmill.actors.sources.pointers import LOCATOR, LOCATOR_FIELDS, MISSING
from gristmill.actors.speech.ingest import check_samples, read_audio
from gristmill.shards.errors import RejectRecord, UserError
from gristmill.shards.random import RecordRandom
from gristmill.shards.schema import ID, SPEECH, SPEECH_FIELDS
from gristmill.shards.stage import Actor

PLAN_FIELDS = (
    ID,
    pa.field("text", pa.string()),  # null in a part that is not annotated
    pa.field("speaker", pa.string()),
    pa.field("duration", pa.float64()),  # seconds, of the joined string: shards are cut by it
    pa.field("source_ids", pa.list_(pa.string())),
    pa.field("sources", pa.list_(LOCATOR)),
    pa.field("gaps", pa.list_(pa.float64())),  # seconds: before the first, between neighbours, after the last
)
PLAN = pa.schema(PLAN_FIELDS)
DROPS = ("source_ids", "sources", "gaps")
_FADE = 0.004  # s, at either end of a recording


class DigitPart(NamedTuple):
    """A part of the strings: its share of all recordings, its number of strings, and whether they have text."""

    share: float
    strings: int
    annotated: bool = True


def plan_strings(
    rows: pa.Table,
    parts: Mapping[str, DigitPart],
    seed: int,
    min_digits: int = 3,
    max_digits: int = 7,
    gap: tuple[float, float] = (0.05, 0.25),
    corpus: str = "digit-strings",
    apart: str | None = None,
) -> dict[str, pa.Table]:
    """Return for each part the plan of its strings (``PLAN``), drawn from probed pointers of single words.

    ``rows`` has the columns of :class:`gristmill.actors.speech.ingest.Probe`, including ``text`` and ``speaker``. No
    recording is in two parts. A string has one speaker and ``min_digits`` to ``max_digits`` words. Within a part
    speakers alternate, and each speaker's words, and its recordings of a word, are used equally often. ``gap``: minimum
    and maximum pause, seconds. Nothing depends on the order of ``rows``. The part named ``apart`` has speakers of its
    own, all their recordings: its share is that of speakers, at least one.
    """
    given = sorted(rows.to_pylist(), key=lambda row: row["id"])
    if not 1 <= min_digits <= max_digits or not 0 <= gap[0] <= gap[1]:
        raise UserError("digit strings: expected 1 <= min_digits <= max_digits and gaps of 0 s or more, smallest first")
    if any(part.share <= 0 or part.strings < 0 for part in parts.values()) or (
        sum(part.share for part in parts.values()) > 1 + 1e-9
    ):
        raise UserError("digit strings: the shares of the parts must be above 0 and sum to at most 1")
    bare = next((row["id"] for row in given if not row["text"] or not row["speaker"]), None)
    if bare is not None or not given:
        raise UserError(f"digit strings: {bare or 'no recordings'}; expected recordings with text and speaker")
    recordings = _split_speakers(given, parts, apart, seed) if apart else _split(given, parts, _splitting(seed))
    draw = RecordRandom(seed, "plan_strings")
    plans = {}
    for name, part in parts.items():
        strings = _strings(recordings[name], part, draw(name), (min_digits, max_digits), gap, f"{corpus}/{name}")
        plans[name] = pa.Table.from_pylist(list(strings), schema=PLAN)
    return plans


def _splitting(seed: int) -> RecordRandom:
    return RecordRandom(seed, "split_digits")


def _split_speakers(
    rows: list[dict[str, Any]], parts: Mapping[str, DigitPart], apart: str, seed: int
) -> dict[str, dict[str, dict[str, list[dict[str, Any]]]]]:
    """Split recordings as :func:`_split` does, after one part got speakers of its own."""
    draw = RecordRandom(seed, "speakers_apart")
    speakers = sorted({row["speaker"] for row in rows}, key=lambda name: draw(name).random())
    taken = max(1, round(parts[apart].share * len(speakers)))
    if taken == len(speakers):
        raise UserError(f"digit strings: {len(speakers)} speakers; expected more, since some are held out for {apart}")
    held_out = set(speakers[:taken])
    left = 1 - parts[apart].share
    others = {name: part._replace(share=part.share / left) for name, part in parts.items() if name != apart}
    own = [row for row in rows if row["speaker"] in held_out]
    rest = [row for row in rows if row["speaker"] not in held_out]
    all_of_it = {apart: parts[apart]._replace(share=1.0)}
    return _split(own, all_of_it, _splitting(seed)) | _split(rest, others, _splitting(seed))


def _split(
    rows: list[dict[str, Any]], parts: Mapping[str, DigitPart], random: RecordRandom
) -> dict[str, dict[str, dict[str, list[dict[str, Any]]]]]:
    """Split each speaker's recordings of each word among the parts; return part -> speaker -> word -> recordings."""
    cells: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        cells[row["speaker"], row["text"]].append(row)
    out: dict[str, dict[str, dict[str, list[dict[str, Any]]]]] = {name: {} for name in parts}
    owed = dict.fromkeys(parts, 0.0)  # a part's loss to rounding so far, so that shares are right over all cells
    for (speaker, word), cell in sorted(cells.items()):
        order = random(f"{speaker}\x1f{word}").permutation(len(cell))
        want = {name: part.share * len(cell) + owed[name] for name, part in parts.items()}
        counts = {name: max(0, math.floor(want[name] + 1e-9)) for name in parts}
        total = min(len(cell), round(sum(want.values())))
        for name in sorted(parts, key=lambda name: counts[name] - want[name]):
            counts[name] += sum(counts.values()) < total
        for name in parts:  # every part gets each word of each speaker, where there are enough recordings
            largest = max(counts, key=lambda other: counts[other])
            if not counts[name] and counts[largest] > 1:
                counts[name], counts[largest] = 1, counts[largest] - 1
        start = 0
        for name in parts:
            owed[name] = want[name] - counts[name]
            taken = [cell[i] for i in order[start : start + counts[name]]]
            start += counts[name]
            if taken:
                out[name].setdefault(speaker, {})[word] = taken
    return out


def _deck(items: list[Any], rng: np.random.Generator, copies: int = 1) -> Iterator[Any]:
    """Yield the items endlessly and equally often, in a new order on each pass."""
    while True:
        for i in rng.permutation(len(items) * copies):
            yield items[i % len(items)]


def _strings(
    speakers: dict[str, dict[str, list[dict[str, Any]]]],
    part: DigitPart,
    rng: np.random.Generator,
    digits: tuple[int, int],
    gap: tuple[float, float],
    prefix: str,
) -> Iterator[dict[str, Any]]:
    if part.strings and not speakers:
        raise UserError(f"digit strings: no recording is left for {prefix}; expected a larger share or more recordings")
    # Several copies of each word in a deck, so that a word may be repeated, as in real numbers.
    words = {s: _deck(sorted(speakers[s]), rng, copies=5) for s in sorted(speakers)}
    takes = {(s, w): _deck(speakers[s][w], rng) for s in sorted(speakers) for w in sorted(speakers[s])}
    order = _deck(sorted(speakers), rng)
    for number in range(part.strings):
        speaker = next(order)
        chosen = [next(words[speaker]) for _ in range(rng.integers(digits[0], digits[1] + 1))]
        sources = [next(takes[speaker, word]) for word in chosen]
        gaps = [round(float(g), 4) for g in rng.uniform(*gap, len(chosen) + 1)]
        yield {
            "id": f"{prefix}/{number:06d}",
            "text": " ".join(chosen) if part.annotated else None,
            "speaker": speaker,
            "duration": sum(gaps) + sum(source["duration"] or 0.0 for source in sources),
            "source_ids": [source["id"] for source in sources],
            "sources": [{f.name: source[f.name] for f in LOCATOR_FIELDS} for source in sources],
            "gaps": gaps,
        }


class JoinDigits(Actor):
    """Reads the recordings of each planned string and joins them, with its pauses, into one speech record.

    Each recording fades in and out, so that joins do not click. A string with an unusable recording is rejected with
    the recording's reason.
    """

    name = "join_digits"
    adds = SPEECH_FIELDS[1:]
    drops = DROPS
    settings: RateSettings

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return planned strings as records."""
        rate = self.settings.sampling_rate
        rows = batch.to_pylist()
        flat = [source for row in rows for source in row["sources"]]
        found = iter(read_audio(flat))
        encoded: list[bytes | None] = []
        for row in rows:
            parts = [next(found) for _ in row["sources"]]
            row.update(parent_id=None, confidence=None, lang=None, reject_reason=None, sampling_rate=rate)
            row["label_source"] = None if row["text"] is None else "gold"
            try:
                samples = self._join(parts, row["gaps"])
                row["duration"] = len(samples) / rate
                encoded.append(encode(samples, rate))
            except RejectRecord as reject:
                row["reject_reason"] = reject.reason
                encoded.append(None)
        columns = [
            audio_array(encoded) if f.name == "audio" else pa.array([row[f.name] for row in rows], f.type)
            for f in SPEECH
        ]
        reasons = pa.array([row["reject_reason"] for row in rows], pa.string())
        return pa.Table.from_arrays(columns, schema=SPEECH).append_column("reject_reason", reasons)

    def _join(self, parts: list[tuple[np.ndarray, int] | str], gaps: list[float]) -> np.ndarray:
        if not parts:
            raise RejectRecord(MISSING)
        rate = self.settings.sampling_rate
        pieces = [np.zeros(round(gaps[0] * rate), np.float32)]
        for part, pause in zip(parts, gaps[1:], strict=True):
            if isinstance(part, str):
                raise RejectRecord(part)
            check_samples(part[0], 0.0)
            samples = resample(part[0], part[1], rate).copy()
            count = min(round(_FADE * rate), len(samples) // 2)
            slope = (0.5 - 0.5 * np.cos(np.pi * (np.arange(count) + 0.5) / max(count, 1))).astype(np.float32)
            samples[:count] *= slope
            samples[len(samples) - count :] *= slope[::-1]
            pieces += [samples, np.zeros(round(pause * rate), np.float32)]
        return np.concatenate(pieces)
