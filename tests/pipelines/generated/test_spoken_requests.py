import itertools
import re

import pyarrow as pa
import pytest

from gristmill.actors.speech.voices import TEST_VOICES, TRAIN_VOICES, voices_of
from gristmill.pipelines.generated.spoken_requests import SENTENCES, SLOTS, TEMPLATES, held_out, requests, vocabulary
from gristmill.shards.errors import UserError


def table(part: str, n: int, **kwargs: int) -> pa.Table:
    return pa.concat_tables(requests(part, n, voices_of(part), **kwargs))


def test_texts_are_short_normalised_and_from_the_vocabulary() -> None:
    words = set(vocabulary())
    for text in table("labelled", 3000)["text"].to_pylist():
        assert re.fullmatch(r"[a-z']+( [a-z']+){2,7}", text), text
        assert words.issuperset(text.split())


def test_the_vocabulary_is_modest_and_used() -> None:
    assert 200 <= len(vocabulary()) <= 500
    seen = {w for text in table("unlabelled", 20000)["text"].to_pylist() for w in text.split()}
    assert seen == set(vocabulary())


def test_sentences_seldom_repeat() -> None:
    assert len(set(table("labelled", 500)["text"].to_pylist())) > 480
    assert len(set(table("unlabelled", 3000)["text"].to_pylist())) > 2500


def test_every_slot_is_used_and_every_template_fits_somewhere() -> None:
    patterns = list(itertools.chain(*TEMPLATES.values()))
    used = {name for p in patterns for name in re.findall(r"\{(\w+)\}", p)}
    assert used == set(SLOTS)
    for pattern in patterns:
        shortest = re.sub(r"\{(\w+)\}", lambda m: min(SLOTS[m[1]], key=lambda v: len(v.split())), pattern)
        assert 3 <= len(shortest.split()) <= 8, pattern


def test_records_do_not_depend_on_how_they_are_streamed() -> None:
    whole = table("labelled", 50, seed=3)
    assert whole.schema == SENTENCES
    assert table("labelled", 50, seed=3, rows=7).equals(whole)
    assert table("labelled", 20, seed=3, start=30).equals(whole.slice(30))
    assert not table("labelled", 50, seed=4).equals(whole)
    assert [len(t) for t in requests("test", 25, voices_of("test"), rows=10)] == [10, 10, 5]
    assert list(requests("test", 0, voices_of("test"))) == []


def test_the_test_part_shares_no_sentence_and_no_voice() -> None:
    parts = {part: table(part, 3000, seed=part == "test") for part in ("labelled", "unlabelled", "test")}
    for column in ("id", "text", "voice"):
        tested = set(parts["test"][column].to_pylist())
        assert tested.isdisjoint(parts["labelled"][column].to_pylist())
        assert tested.isdisjoint(parts["unlabelled"][column].to_pylist())
    assert set(parts["test"]["voice"].to_pylist()) == set(TEST_VOICES["neural"])
    assert set(parts["labelled"]["voice"].to_pylist()) == set(TRAIN_VOICES["neural"])
    assert not set(parts["labelled"]["id"].to_pylist()) & set(parts["unlabelled"]["id"].to_pylist())
    assert all(held_out(text) for text in parts["test"]["text"].to_pylist())


@pytest.mark.parametrize(("part", "n"), [("train", 3), ("test", -1)])
def test_wrong_arguments_are_told(part: str, n: int) -> None:
    with pytest.raises(UserError, match="expected"):
        next(requests(part, n, voices_of("test")))
