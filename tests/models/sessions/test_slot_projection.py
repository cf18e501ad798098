"""Labels follow words to another wording; what is left over, crosses or is torn apart is refused."""

from __future__ import annotations

import numpy as np
import pytest

from gristmill.actors.nlu.annotation import read_brackets
from gristmill.models.nlu.domain import Slot
from gristmill.models.sessions.projection import (
    CROSSING,
    LEFT_OVER,
    NO_WORDS,
    Projection,
    ProjectionSettings,
    project,
    string_match,
)
from gristmill.shards.errors import RejectRecord

pytest.importorskip("text_to_num", reason="text2num is not installed")


def given(annotated: str) -> tuple[list[str], list[Slot]]:
    tokens, spans = read_brackets(annotated)
    return tokens, [Slot(name, " ".join(tokens[start:end]), start, end) for name, start, end in spans]


def projected(annotated: str, target: str, **settings: float | bool) -> Projection:
    tokens, slots = given(annotated)
    return project(tokens, slots, target.split(), ProjectionSettings(**settings))


def values(made: Projection) -> list[tuple[str, str]]:
    return [(slot.name, slot.value) for slot in made.slots]


@pytest.mark.parametrize(
    ("source", "target", "wanted"),
    [
        ("alarm at [time : ten am]", "wake me at 10am", [("time", "10am")]),
        ("alarm at [time : 10am]", "wake me at ten a m please", [("time", "ten a m")]),
        ("lights in [area : the kitchen] off", "kitchen lights off", [("area", "kitchen")]),
        ("lights off in [area : kitchen]", "the kitchen turn lights off", [("area", "kitchen")]),
        ("convert [money : u. s. d.] now", "convert usd now", [("money", "usd")]),
        ("from [a : boston] to [b : denver]", "to denver from boston", [("b", "denver"), ("a", "boston")]),
        ("set [area : kitchen] light", "set kichen light", [("area", "kichen")]),
        (
            "cancel on [date : twenty first] [month : june]",
            "cancel on june 21st",
            [("month", "june"), ("date", "21st")],
        ),
        ("lights off", "all lights off now", []),
    ],
)
def test_labels_follow_words(source: str, target: str, wanted: list[tuple[str, str]]) -> None:
    assert values(projected(source, target)) == wanted


def test_of_repeated_words_the_order_and_the_neighbours_decide() -> None:
    made = projected("move [a : five] to [b : five] please", "move five to 5 please")
    assert [(slot.name, slot.start) for slot in made.slots] == [("a", 1), ("b", 3)]


def test_a_slot_without_a_counterpart_is_refused() -> None:
    with pytest.raises(RejectRecord, match=LEFT_OVER):
        projected("play [song : seal] in [area : kitchen]", "play seal")


def test_its_article_alone_is_no_counterpart() -> None:
    with pytest.raises(RejectRecord, match=LEFT_OVER):
        projected("dim [area : the kitchen] now please", "please dim the", gaps=False)


def test_slots_that_cross_are_refused() -> None:
    with pytest.raises(RejectRecord, match=f"{CROSSING}|pieces"):
        projected("play [a : silver river] by [b : golden heart]", "play silver golden river heart")


def test_a_number_is_never_taken_for_another() -> None:
    with pytest.raises(RejectRecord, match=LEFT_OVER):
        projected("set it to [level : fifteen] now", "set it now to be fifty", gaps=False)


def test_what_is_left_over_at_the_same_place_is_a_counterpart_of_little_confidence() -> None:
    made = projected("fly to [place : new york] today", "fly to ny today")
    assert values(made) == [("place", "ny")]
    assert made.confidence <= ProjectionSettings().gap
    with pytest.raises(RejectRecord, match=LEFT_OVER):
        projected("fly to [place : new york] today", "fly to ny today", gaps=False)


def test_a_misheard_value_has_less_confidence_than_an_equal_one() -> None:
    equal, misheard = (projected("open [area : kitchen] blind", f"open {word} blind") for word in ("kitchen", "kitten"))
    assert equal.confidence == 1.0
    assert 0.5 < misheard.confidence < 1.0


def test_word_vectors_find_a_synonym() -> None:
    tokens, slots = given("dim [area : sofa] light")
    vectors = {"sofa": np.array([0.6, 0.8]), "couch": np.array([0.8, 0.6]), "please": np.array([1.0, 0.0])}
    target = ["please", "light", "up", "couch", "now"]
    made = project(tokens, slots, target, ProjectionSettings(gaps=False), vectors=vectors)
    assert values(made) == [("area", "couch")]
    assert made.confidence == pytest.approx(0.96)


def test_string_match_finds_values_word_for_word_only() -> None:
    _, slots = given("alarm at [time : ten am]")
    assert string_match(slots, ["wake", "me", "at", "Ten", "AM"]).slots == (Slot("time", "Ten AM", 3, 5),)
    with pytest.raises(RejectRecord, match=LEFT_OVER):
        string_match(slots, ["wake", "me", "at", "10am"])


def test_an_utterance_without_words_is_refused() -> None:
    with pytest.raises(RejectRecord, match=NO_WORDS):
        project(["stop"], [], [])
