"""Units of utterances: numbers, times and compounds that are written in different ways have the same form."""

from __future__ import annotations

import pytest

from gristmill.models.sessions.units import join_units, read_units, similarity

pytest.importorskip("text_to_num", reason="text2num is not installed")


def forms(text: str, other: str = "", lang: str = "en") -> list[str]:
    own = read_units(text.split(), lang)
    return [unit.form for unit in (join_units(own, read_units(other.split(), lang)) if other else own)]


@pytest.mark.parametrize(
    ("spoken", "written"),
    [
        ("five am", "5am"),
        ("ten am", "10:00 am"),
        ("eight thirty", "8:30"),
        ("one oh two", "1:02"),
        ("twenty first of june", "21st of june"),
        ("twenty seventeen", "2017"),
        ("eighty percent", "80%"),
        ("one hundred and five point one", "105.1"),
        ("u. s. d.", "USD"),
        ("light bulb", "lightbulb"),
        ("rain coat", "raincoat"),
    ],
)
def test_ways_to_write_the_same_have_the_same_units(spoken: str, written: str) -> None:
    ours, theirs = forms(spoken, written), forms(written, spoken)
    assert len(ours) == len(theirs)
    assert [similarity(one, other) for one, other in zip(ours, theirs, strict=True)] == [1.0] * len(ours)


def test_hundreds_are_hours_and_months_are_numbers() -> None:
    assert similarity("800", "8") == similarity("1300", "13") == similarity("march", "3") == 1.0
    assert similarity("march", "4") == 0.0


def test_numbers_and_short_words_are_equal_or_not_alike_at_all() -> None:
    assert similarity("15", "50") == similarity("18", "80") == similarity("on", "off") == similarity("to", "two") == 0.0
    assert 0.5 < similarity("bedroom", "bathroom") < 1


def test_a_unit_knows_its_tokens() -> None:
    units = read_units(["wake", "me", "at", "twenty", "five", "past", "10am,"])
    assert [(unit.form, unit.start, unit.end) for unit in units[3:]] == [
        ("25", 3, 5),
        ("past", 5, 6),
        ("10", 6, 7),
        ("am", 6, 7),
    ]


def test_nothing_is_joined_over_a_border() -> None:
    own = read_units(["u", "s", "d"])
    assert [unit.form for unit in join_units(own, read_units(["usd"]), borders=[1])] == ["u", "s", "d"]


def test_words_of_other_scripts_stay_whole_and_their_numbers_are_words() -> None:
    assert forms("रसोई की बत्ती", lang="hi") == ["रसोई", "की", "बत्ती"]
    assert forms("five lights", lang="hi") == ["five", "lights"]
