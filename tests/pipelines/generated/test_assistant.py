"""Generated requests: typed, spoken words, drawn from every template and from the seed alone."""

from __future__ import annotations

import unicodedata
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from gristmill.pipelines.generated.assistant import LANGUAGES, requests, sample, spoken
from gristmill.pipelines.generated.assistant_templates import DOMAINS
from gristmill.pipelines.generated.assistant_words import AREAS, FLOORS, NAMES, WORDS, values
from gristmill.shards.errors import UserError
from gristmill.shards.schema import REQUESTS


def table(records: int, *languages: str, **options: int) -> pa.Table:
    return pa.concat_tables(requests(records, languages or ("en",), **options))


@pytest.fixture(scope="module")
def drawn() -> dict[str, list[dict]]:
    return {lang: table(3000, lang).to_pylist() for lang in LANGUAGES}


@pytest.mark.parametrize("lang", LANGUAGES)
def test_requests_are_words_and_spans_point_at_their_values(drawn: dict[str, list[dict]], lang: str) -> None:
    script = {"en": "LATIN", "hi": "DEVANAGARI"}[lang]
    for row in drawn[lang]:
        assert row["text"] == " ".join(row["tokens"]) == row["text"].lower()
        assert all(unicodedata.category(sign)[0] in "LM" or sign == " " for sign in row["text"]), row["text"]
        assert any(unicodedata.name(sign).startswith(script) for sign in row["text"] if sign != " ")
        assert (row["lang"], row["label_source"]) == (lang, "synthetic")
        ends = [0]
        for slot in row["slots"]:
            assert slot["value"] == " ".join(row["tokens"][slot["start"] : slot["end"]]) != ""
            assert ends[-1] <= slot["start"] < slot["end"]
            ends.append(slot["end"])


def test_every_domain_is_spoken_of_and_nothing_is_said_again_and_again(drawn: dict[str, list[dict]]) -> None:
    domains = Counter(row["domain"] for row in drawn["en"])
    assert tuple(sorted(domains)) == DOMAINS
    assert max(domains.values()) < 0.15 * 3000
    assert min(domains.values()) > 0.005 * 3000
    assert len({row["text"] for row in drawn["en"]}) > 0.95 * 3000
    assert len({row["text"] for row in drawn["hi"]}) > 0.85 * 3000
    assert len({(row["domain"], row["intent"]) for row in drawn["en"]}) > 50
    # An intent is of several domains: what is turned on tells which.
    assert len({row["domain"] for row in drawn["en"] if row["intent"] == "HassTurnOn"}) > 5


def test_things_are_named_in_their_own_domain(drawn: dict[str, list[dict]]) -> None:
    for row in drawn["en"]:
        named = {slot["value"] for slot in row["slots"] if slot["name"] == "name"}
        if row["domain"] == "lock":
            assert named <= set(values(NAMES["en"]["lock"]))
        if named & set(values(NAMES["en"]["fan"])):
            assert row["domain"] == "fan"


def test_a_record_depends_on_seed_and_number_alone() -> None:
    whole = table(60, "en", "hi", seed=3)
    assert whole.schema.equals(REQUESTS)
    assert [part.num_rows for part in requests(60, ("en", "hi"), 3, rows=25)] == [25, 25, 10]
    assert table(60, "en", "hi", seed=3, rows=7).equals(whole)
    assert table(20, "en", "hi", seed=3, start=40).equals(whole.slice(40))
    assert not table(60, "en", "hi", seed=4)["text"].equals(whole["text"])


def test_one_domain_can_be_asked_for() -> None:
    rng = np.random.default_rng(0)
    assert {sample(rng, "en", "timer").domain for _ in range(20)} == {"timer"}


def test_own_words_are_spoken_ones() -> None:
    for lang in LANGUAGES:
        own = [AREAS[lang], FLOORS[lang], *NAMES[lang].values(), *WORDS[lang].values()]
        for text in own:
            assert len(set(values(text))) == len(values(text))
            assert all(value == value.strip() != "" for value in values(text))
            assert all(" ".join(spoken(value).split()) == unicodedata.normalize("NFC", value) for value in values(text))


def test_languages_without_words_are_refused() -> None:
    with pytest.raises(UserError, match=r"lang: \['de'\]; expected some of en, hi"):
        table(1, "en", "de")
