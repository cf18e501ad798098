"""Placeholders: protection of values, their replacement, and lost marks."""

import pytest

from gristmill.models.text.placeholders import (
    MARKS,
    Catalogue,
    Protected,
    fill,
    has_mark,
    number_spans,
    protect,
    protect_pair,
    token_spans,
    value_spans,
)

CATALOGUE = Catalogue({"Kitchen": "रसोई", "kitchen light": "रसोई की लाइट", "five": "पांच", "": "x"})


def test_values_of_the_catalogue_are_found_as_whole_words_longest_first():
    text = "turn on the KITCHEN light and the kitchen, not kitchens"
    assert [text[slice(*span)] for span in CATALOGUE.spans(text)] == ["KITCHEN light", "kitchen"]
    assert CATALOGUE.target("kitchen  LIGHT") == "रसोई की लाइट"
    assert CATALOGUE.target("attic") is None
    assert len(CATALOGUE) == 3
    assert Catalogue({}).spans(text) == []


def test_a_hindi_word_ends_where_its_vowel_signs_end():
    assert value_spans("बैठक में रसोई। रसोईघर", ["रसोई"]) == [(9, 13)]
    assert value_spans("कमरे", ["कमर"]) == []
    assert value_spans("anything", []) == []


def test_numbers_and_slots_are_found():
    text = "at 7:30 set १२ to 1,000.5%"
    assert [text[slice(*span)] for span in number_spans(text)] == ["7:30", "१२", "1,000.5"]
    tokens = ["turn", "on", "the", "on", "switch"]
    assert token_spans("Turn on the on switch".lower(), tokens, [(3, 5)]) == [(12, 21)]
    assert token_spans("turn on", tokens, [(0, 2), (1, 4)]) == [(0, 7)]  # no spans of tokens that are not in the text
    assert token_spans("turn on", tokens, [(2, 2), (-1, 1)]) == []


def test_a_protected_text_comes_back_verbatim_or_from_the_catalogue():
    text = "set kitchen light to 40"
    protected = protect(text, [*number_spans(text), *CATALOGUE.spans(text)], first=9)
    assert protected == Protected("set <v9> to <v0>", (("<v9>", "kitchen light"), ("<v0>", "40")))
    assert fill("<v9> को <v0> करो", protected, CATALOGUE).text == "रसोई की लाइट को 40 करो"
    assert fill(protected.text, protected).text == text
    assert fill("<v9><v0>", protected).whole


def test_the_longest_overlapping_span_is_marked_and_the_eleventh_is_not():
    assert protect("abcdef", [(0, 2), (1, 5), (3, 3)]).values == (("<v0>", "bcde"),)
    text = " ".join(str(number) for number in range(12))
    protected = protect(text, number_spans(text))
    assert len(protected.values) == len(MARKS)
    assert protected.text.endswith("<v9> 10 11")


def test_text_that_looks_like_a_mark_is_protected():
    protected = protect("press <v3> now", [])
    assert protected.text == "press <v0> now"
    assert fill(protected.text, protected).text == "press <v3> now"
    assert has_mark("<v3>")
    assert not has_mark("<v>")


def test_lost_marks_are_appended_repeated_ones_dropped_and_both_counted():
    protected = protect("a 1 b 2", [(2, 3), (6, 7)])
    found = fill("x <v1> y <v1> <v5>", protected)
    assert (found.text, found.lost, found.doubled, found.whole) == ("x 2 y 1", 1, 2, False)


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("Open Firefox 3 times", "Firefox को 3 बार खोलें", ("Open <v0> <v1> times", "<v0> को <v1> बार खोलें")),
        ("wait 12 seconds", "१२ सेकंड रुकें", ("wait <v0> seconds", "<v0> सेकंड रुकें")),
        ("turn on the kitchen light", "रसोई की लाइट चालू", ("turn on the <v0>", "<v0> चालू")),
        ("kitchen and five", "कमरा और पांच", ("kitchen and <v0>", "कमरा और <v0>")),  # one side lacks the kitchen
        ("2 of 2", "2", ("<v0> of 2", "<v0>")),
        ("no such thing", "कुछ नहीं", ("no such thing", "कुछ नहीं")),
    ],
)
def test_pairs_get_the_same_marks_on_both_sides(source, target, expected):
    assert protect_pair(source, target, "hi", CATALOGUE) == expected


def test_equal_words_in_the_target_script_are_not_names():
    assert protect_pair("die in Berlin", "die in Berlin", "de") == ("die in Berlin", "die in Berlin")
