"""Normalisation, words and scripts."""

import pytest

from gristmill.models.languages import base_language, is_language, script_share
from gristmill.models.normalise import normalise, words
from gristmill.pipelines.generated.assistant import spoken


def test_normalise_composes_and_cleans():
    assert normalise("  Cafe\u0301\u00a0\tau\u200b lait\ufeff\r\n") == "Café au lait"
    assert normalise("e\u200b\u0301") == "é"  # separated characters compose
    assert normalise("co\u00adoperate") == "cooperate"


def test_devanagari_has_one_form():
    assert normalise("\u0958\u0932\u092e") == normalise("\u0915\u093c\u0932\u092e") == "\u0915\u093c\u0932\u092e"
    assert normalise("क\u094d\u200dष") == normalise("क\u094dष")
    assert normalise("न\u093c") == "\u0929"  # the one nukta letter of these that composes


def test_words_of_hindi_keep_their_marks_and_lose_the_danda():
    assert words("लाइट चालू करो। रसोई में?", "hi") == ["लाइट", "चालू", "करो", "रसोई", "में"]


@pytest.mark.parametrize(
    "text", ["Turn ON the kitchen-light, please!", "Set it to 21.5 °C (50%)", 'it\'s "mine"', "पंखा २ पर करो।"]
)
def test_words_are_those_of_requests(text):
    assert words(text, "en") == spoken(text).split()


def test_a_control_character_splits_words_and_a_format_character_does_not():
    assert normalise("दीपक\x00नल") == "दीपक नल"
    assert normalise("soft\u00adhyphen\ufeff") == "softhyphen"


def test_words_by_language():
    assert words("IŞIK İki", "tr") == ["ışık", "iki"]
    assert words("It’s", "en") == ["its"]


def test_script_of_a_language():
    assert is_language("लाइट on करो", "hi")
    assert is_language("लाइट चालू", "hi-IN")
    assert not is_language("turn on the light", "hi")
    assert not is_language("लाइट चालू", "en_GB")
    assert is_language("123 !", "hi")
    assert not is_language("!", "hi")
    assert is_language("whatever", "tlh")
    assert script_share("whatever", "tlh") is None
    assert script_share("ab लल", "hi") == 0.5
    assert [base_language(tag) for tag in ("hi_IN", "hin", "eng-GB", "sr@latin", "mul", "")] == [
        *("hi", "hi", "en", "sr", "mul", ""),
    ]
