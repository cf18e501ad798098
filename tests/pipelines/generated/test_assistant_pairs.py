import pytest

from gristmill.pipelines.generated import assistant_pairs
from gristmill.pipelines.generated.assistant_catalogue import catalogue, dictionary
from gristmill.shards.errors import UserError

DOMAINS = ("light", "timer", "media")


def rows(tables) -> list[dict]:
    return [row for table in tables for row in table.to_pylist()]


def test_pairs_say_the_same_and_do_not_depend_on_how_many_there_are() -> None:
    made = rows(assistant_pairs.pairs(60, DOMAINS, seed=1, rows=25))
    assert made[:20] == rows(assistant_pairs.pairs(20, DOMAINS, seed=1))
    assert made != rows(assistant_pairs.pairs(60, DOMAINS, seed=2))
    for row in made:
        numbers = [hindi for english, hindi in catalogue().items() if row["source"].endswith(f" {english} minutes")]
        assert not numbers or any(number in row["target"] for number in numbers)
    assert sum(row["source"].endswith(" minutes") for row in made) > 0


def test_no_pair_has_a_text_that_is_kept_apart() -> None:
    made = {row["target"] for row in rows(assistant_pairs.pairs(60, ["timer"], seed=1))}
    kept_apart = sorted(made)[::2]
    others = {row["target"] for row in rows(assistant_pairs.pairs(60, ["timer"], seed=1, without=kept_apart))}
    assert not others & set(kept_apart)
    assert made - set(kept_apart) <= others


def test_each_word_of_the_dictionary_is_there_as_often_as_it_is_asked_for() -> None:
    made = rows(assistant_pairs.dictionary_pairs(3))
    assert len(made) == 3 * len(dictionary())
    assert len({row["id"] for row in made}) == len(made)
    assert sum((row["source"], row["target"]) == ("minutes", "मिनट") for row in made) == 3


@pytest.mark.parametrize(
    ("english", "hindi"),
    [("kitchen", "रसोई"), ("red", "रेड"), ("twenty two", "बाईस"), ("air conditioner", "एयर कंडीशनर")],
)
def test_the_catalogue_has_rooms_colours_numbers_and_things(english: str, hindi: str) -> None:
    assert catalogue()[english] == hindi


def test_slots_of_references_are_those_of_the_request() -> None:
    made = rows(assistant_pairs.references(40, ["timer"], seed=0, most=4))
    timers = [row for row in made if row["text"].startswith(("start", "set"))]
    assert timers
    for row in made:
        assert 1 <= len(row["references"]) <= 4
        numbers = [hindi for english, hindi in catalogue().items() if row["text"].endswith(f" {english} minutes")]
        assert all(any(number in text for number in numbers) for text in row["references"]) or not numbers


def test_texts_are_distinct_of_the_domains_and_without_those_named() -> None:
    made = rows(assistant_pairs.texts(50, "en", DOMAINS, seed=0))
    texts = [row["text"] for row in made]
    assert len(set(texts)) == 50
    assert {row["domain"] for row in made} <= set(DOMAINS)
    others = {row["text"] for row in rows(assistant_pairs.texts(50, "en", DOMAINS, seed=0, without=texts[:10]))}
    assert len(others) == 50
    assert not others & set(texts[:10])


def test_requests_beyond_the_templates_are_rejected() -> None:
    with pytest.raises(UserError, match=r"cooking.*; expected some of both languages: cleaning, climate, "):
        assistant_pairs.check_domains(["cooking"])
    with pytest.raises(UserError, match="fewer than 5000 distinct requests in hi"):
        rows(assistant_pairs.texts(5000, "hi", ["lock"], seed=0))
