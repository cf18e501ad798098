"""Digit strings: the parts share no recording, use is balanced, and the audio follows the plan."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from gristmill.actors.audio import RateSettings, audio_bytes, decode
from gristmill.actors.sources.pointers import LOCATOR_FIELDS
from gristmill.actors.sources.speech import list_sources
from gristmill.actors.speech.ingest import Probe, ProbeSettings
from gristmill.actors.speech.join_digits import DigitPart, JoinDigits, plan_strings
from gristmill.shards.errors import UserError
from gristmill.shards.schema import SPEECH

PARTS = {
    "labelled": DigitPart(0.08, 40),
    "unlabelled": DigitPart(0.72, 200, annotated=False),
    "test": DigitPart(0.2, 50),
}


@pytest.fixture(scope="module")
def digits(data_dir: Path) -> pa.Table:
    folder = data_dir / "speech" / "digits"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    return pa.concat_tables([Probe(ProbeSettings())(t) for t in list_sources(str(folder))]).drop_columns(
        "reject_reason"
    )


def test_no_recording_is_in_two_parts_and_the_shares_hold(digits: pa.Table) -> None:
    plans = plan_strings(digits, {k: p._replace(strings=2000) for k, p in PARTS.items()}, seed=1)
    used = {name: {s for ids in plan["source_ids"].to_pylist() for s in ids} for name, plan in plans.items()}
    assert sum(map(len, used.values())) == len(set().union(*used.values()))
    for name, part in PARTS.items():
        assert len(used[name]) == pytest.approx(part.share * len(digits), abs=5)


def made_of(rows: list[tuple[str, str, str]]) -> pa.Table:
    """Return probed pointers of (id, word, speaker)."""
    keys, words, speakers = zip(*rows, strict=True)
    empty = {field.name: pa.nulls(len(rows), field.type) for field in LOCATOR_FIELDS}
    return pa.table(
        {**empty, "id": list(keys), "text": list(words), "speaker": list(speakers), "duration": [0.5] * len(rows)}
    )


def test_a_part_may_have_speakers_of_its_own() -> None:
    rows = made_of([(f"{s}{w}{n}", w, s) for s in "abcde" for w in ("one", "two") for n in range(20)])
    speakers = {}
    for seed in (1, 2, 3, 4):
        plans = plan_strings(rows, PARTS, seed=seed, apart="test")
        found = {name: set(plan["speaker"].to_pylist()) for name, plan in plans.items()}
        assert len(found["test"]) == 1
        assert found["labelled"] == found["unlabelled"] == set("abcde") - found["test"]
        used = [{s for ids in plans[name]["source_ids"].to_pylist() for s in ids} for name in PARTS]
        assert [len(one) for one in used] == [16, 144, 40], "the shares of the rest hold, and nothing is left out"
        speakers[seed] = found["test"]
    assert len(set(map(tuple, speakers.values()))) > 1, "the seed chooses the speaker"
    with pytest.raises(UserError, match="1 speakers; expected more"):
        plan_strings(made_of([("a", "one", "a")] * 5), PARTS, seed=1, apart="test")


def test_strings_are_balanced_and_of_one_speaker(digits: pa.Table) -> None:
    plans = plan_strings(digits, PARTS, seed=1)
    source = {row["id"]: row for row in digits.select(["id", "speaker", "text"]).to_pylist()}
    for name, plan in plans.items():
        speakers = Counter(plan["speaker"].to_pylist())
        assert max(speakers.values()) - min(speakers.values()) <= 1
        words: Counter[str] = Counter()
        for row in plan.to_pylist():
            assert 3 <= len(row["source_ids"]) <= 7
            assert len(row["gaps"]) == len(row["source_ids"]) + 1
            assert {source[s]["speaker"] for s in row["source_ids"]} == {row["speaker"]}
            spoken = [source[s]["text"] for s in row["source_ids"]]
            words.update(spoken)
            assert row["text"] == (None if name == "unlabelled" else " ".join(spoken))
        assert len(words) == 10
        assert max(words.values()) - min(words.values()) <= 25  # at most one deck of 5 for each of 5 speakers
        assert {len(ids) for ids in plan["source_ids"].to_pylist()} == {3, 4, 5, 6, 7}


def test_a_plan_depends_on_the_seed_and_not_on_the_order(digits: pa.Table) -> None:
    plans = plan_strings(digits, PARTS, seed=1)
    turned = digits.take(np.random.default_rng(0).permutation(len(digits)))
    again = plan_strings(turned, PARTS, seed=1)
    other = plan_strings(digits, PARTS, seed=2)
    for name in PARTS:
        assert plans[name].equals(again[name])
        assert not plans[name].equals(other[name])


def test_joined_audio_is_the_recordings_and_pauses(digits: pa.Table) -> None:
    plan = plan_strings(digits, PARTS, seed=1)["labelled"].slice(0, 4)
    out = JoinDigits(RateSettings(sampling_rate=8000))(plan)
    assert out["reject_reason"].null_count == 4
    assert out.drop_columns("reject_reason").schema.equals(SPEECH)
    assert set(JoinDigits.stage().output_schema(plan.schema).names) == set(SPEECH.names)
    paths = dict(zip(digits["id"].to_pylist(), digits["url"].to_pylist(), strict=True))
    for row, record, data in zip(plan.to_pylist(), out.to_pylist(), audio_bytes(out), strict=True):
        samples, rate = decode(data)
        assert rate == record["sampling_rate"] == 8000
        assert record["duration"] == pytest.approx(len(samples) / 8000)
        assert record["duration"] == pytest.approx(row["duration"], abs=0.001)
        place = round(row["gaps"][0] * 8000)
        assert not samples[:place].any()
        for source, pause in zip(row["source_ids"], row["gaps"][1:], strict=True):
            spoken, _ = soundfile.read(paths[source], dtype="float32")
            middle = slice(40, len(spoken) - 40)
            np.testing.assert_allclose(samples[place : place + len(spoken)][middle], spoken[middle], atol=1e-4)
            place += len(spoken)
            silence = round(pause * 8000)
            assert not samples[place : place + silence].any()
            place += silence
    assert out["label_source"].to_pylist() == ["gold"] * 4


def test_a_lost_recording_rejects_its_string_only(digits: pa.Table) -> None:
    plan = plan_strings(digits, PARTS, seed=1)["test"].slice(0, 3).to_pylist()
    plan[1]["sources"][1]["url"] += ".gone"
    out = JoinDigits(RateSettings(sampling_rate=8000))(
        pa.Table.from_pylist(plan, schema=plan_strings(digits, PARTS, seed=1)["test"].schema)
    )
    assert out["reject_reason"].to_pylist() == [None, "missing", None]


def test_impossible_plans_are_errors(digits: pa.Table) -> None:
    with pytest.raises(UserError, match="shares"):
        plan_strings(digits, {"a": DigitPart(0.7, 1), "b": DigitPart(0.7, 1)}, seed=1)
    without = digits.set_column(digits.schema.get_field_index("speaker"), "speaker", pa.nulls(len(digits), pa.string()))
    with pytest.raises(UserError, match="text and speaker"):
        plan_strings(without, PARTS, seed=1)
