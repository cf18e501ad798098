from collections import Counter
from typing import Any

import pyarrow as pa
import pytest

from gristmill.actors.speech.word_lists import LISTED, WordLists, WordListSettings
from gristmill.shards.errors import UserError
from gristmill.shards.schema import NAMES

POOL = [f"w{number:04d}" for number in range(2000)]
TEXT, RARE = "call w0007 and zebedee", ["w0007", "zebedee"]


def lists(size: int | None, present: bool = True, seed: int = 0, pool: list[str] = POOL) -> WordLists:
    return WordLists(pool, WordListSettings(size=size, present=present, seed=seed))


@pytest.mark.parametrize("size", [2, 10, 100, 1999, 2000])
def test_a_list_has_the_rare_words_and_distractors(size: int) -> None:
    found = lists(size).of("1", TEXT, RARE)
    assert found == sorted(set(found))
    assert len(found) == size
    assert set(found) - set(POOL) == {"zebedee"}
    assert set(RARE) <= set(found)


@pytest.mark.parametrize("size", [10, 1999])
def test_without_them_no_word_of_the_text_is_on_it(size: int) -> None:
    found = lists(size, present=False).of("1", TEXT, ["zebedee"])
    assert len(found) == size
    assert set(found) <= set(POOL) - {"w0007"}


def test_small_lists_are_empty_or_the_rare_words() -> None:
    assert lists(0).of("1", TEXT, RARE) == lists(0, present=False).of("1", TEXT, RARE, own=["a"]) == []
    assert lists(1).of("1", TEXT, RARE) == RARE
    assert lists(1, present=False).of("1", "call me", []) != []


def test_draws_depend_on_the_seed_and_the_record_and_grow_with_the_size() -> None:
    found = lists(50).of("1", TEXT, RARE)
    assert lists(50, pool=POOL[::-1] + POOL[:9]).of("1", TEXT, RARE) == found
    assert lists(50).of("2", TEXT, RARE) != found != lists(50, seed=1).of("1", TEXT, RARE)
    assert set(found) < set(lists(500).of("1", TEXT, RARE))
    assert set(found) - set(RARE) < set(lists(50, present=False).of("1", TEXT, RARE))


def test_all_distractors_are_drawn_alike() -> None:
    pool = POOL[:20]
    few = lists(5, pool=pool)
    drawn = Counter(word for i in range(4000) for word in few.of(str(i), f"call {pool[3]}", []))
    assert set(drawn) == set(pool) - {pool[3]}
    assert max(abs(count / 4000 - 5 / 19) for count in drawn.values()) < 0.03


def test_a_batch_has_its_own_lists_or_drawn_ones() -> None:
    rows: list[dict[str, Any]] = [
        {"id": "1", "text": TEXT, "names": RARE, "listed": ["zebedee", "b", "call", "w0007"]},
        {"id": "2", "text": "call", "names": [], "listed": ["c", "b", "b"]},
    ]
    schema = pa.schema([("id", pa.string()), ("text", pa.string()), NAMES, LISTED])
    batch = pa.Table.from_pylist(rows, schema=schema)
    assert lists(None).of_batch(batch) == [["b", "call", "w0007", "zebedee"], ["b", "c"]]
    assert lists(None, present=False).of_batch(batch) == [["b"], ["b", "c"]]
    drawn = [lists(30).of(row["id"], row["text"], row["names"]) for row in rows]
    assert lists(30).of_batch(batch) == lists(30).of_batch(batch.drop_columns("listed")) == drawn
    with pytest.raises(UserError, match="1 has no list of its own in `listed`; expected one, or a size"):
        lists(None).of_batch(batch.drop_columns("listed"))


def test_too_few_distractors_are_told() -> None:
    with pytest.raises(UserError, match="a list of 2001 words, but 2000 distractors; expected more"):
        lists(2001)
    with pytest.raises(UserError, match="a list of 2000 words, but 1999 distractors that are not in the text of 1"):
        lists(2000, present=False).of("1", TEXT, RARE)
