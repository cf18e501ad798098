"""Requests that words alone do not tell apart: what is meant follows the device, and spans point at their values."""

from __future__ import annotations

import pyarrow as pa

from gristmill.pipelines.generated.ambiguous import FIELDS, requests


def test_the_device_tells_what_is_meant() -> None:
    rows = pa.concat_tables(requests(4000, seed=3)).to_pylist()
    on_television = [row["domain"] for row in rows if row["ambiguous"] and row["device"] == "television"]
    on_speaker = [row["domain"] for row in rows if row["ambiguous"] and row["device"] == "speaker"]
    assert on_television.count("video") > 0.85 * len(on_television)
    assert on_speaker.count("video") < 0.1 * len(on_speaker)
    for row in rows:
        assert row["label_source"] == "synthetic"
        (slot,) = row["slots"]
        assert row["tokens"][slot["start"] : slot["end"]] == slot["value"].split()
        assert row["text"].split() == row["tokens"]


def test_the_words_of_an_ambiguous_request_are_those_of_no_domain() -> None:
    rows = pa.concat_tables(requests(4000, seed=3)).to_pylist()
    carriers: dict[str, set[str]] = {}
    for row in rows:
        if row["ambiguous"]:
            carriers.setdefault(row["domain"], set()).add(row["text"].replace(row["slots"][0]["value"], "X"))
    assert carriers["music"] == carriers["video"] == carriers["books"]


def test_a_record_depends_on_its_number_alone() -> None:
    whole = pa.concat_tables(requests(250, seed=1))
    assert pa.concat_tables(requests(250, seed=1, rows=7)).equals(whole)
    assert whole.schema == FIELDS
    assert not pa.concat_tables(requests(250, seed=2)).equals(whole)
