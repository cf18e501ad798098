"""Normalisation and words."""

import pytest

from gristmill.models.normalise import APOSTROPHES, joined, length_in_words, normalise, parted, plain_apostrophes, words
from gristmill.pipelines.generated.assistant import spoken


def test_normalise_composes_and_cleans():
    assert normalise("  Cafe\u0301\u00a0\tau\u200b lait\ufeff\r\n") == "Café au lait"
    assert normalise("zero\u200bwidth\u200b\u200bspace") == "zero width space"
    assert words("ស្តី\u200bពិភព", "km") == ["ស្តី", "ពិភព"]
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


@pytest.mark.parametrize(
    ("text", "lang", "expected"),
    [
        ("می\u200cخواهم", "fa", None),  # the non-joiner parts verb and prefix
        ("کتاب\u200cهای من", "", None),
        ("ශ්\u200dරී ලංකා", "si", None),  # the joiner makes the conjunct
        ("അവന്\u200d വന്നു", "ml", None),  # and the chillu letter
        ("র\u200d্যাব", "bn", None),  # here it stands before the virama
        ("సాఫ్ట్\u200cవేర్", "te", None),
        ("गर्\u200dयो", "ne", None),
        ("सुर्\u200dयोदय", "mr", None),
        ("कार्\u200dय", "hi", "कार्य"),
        ("क्\u200dष क\u200cलम\u200d", "hi", "क्ष कलम"),
        ("ca\u200cfé\u200d", "fr", "café"),
        ("\u200cمی\u200d\u200cخواهم\u200c", "fa", "می\u200cخواهم"),
        ("م\u200dن", "fa", "من"),
        ("۱۴۰۰ ه\u200d.", "fa", None),
        ("\u200c \u200d", "fa", ""),
    ],
)
def test_joiners_stay_where_spelling_needs_them(text, lang, expected):
    assert normalise(text, lang) == (text if expected is None else expected)
    assert normalise(normalise(text, lang), lang) == normalise(text, lang)


def test_a_joiner_parts_no_word():
    assert words("می\u200cخواهم!", "fa") == ["می\u200cخواهم"]
    assert words("co\u00adop soft\u2060er", "en") == ["coop", "softer"]


@pytest.mark.parametrize("sign", APOSTROPHES)
def test_apostrophes_are_one(sign):
    assert words(f"It{sign}s o{sign}clock") == ["its", "oclock"]
    assert plain_apostrophes(f"l{sign}eau") == "l'eau"


def test_lengths_of_text_without_spaces():
    for text, most, least in (
        ("打开客厅的灯", 5, 3),
        ("明日の朝七時に起こして", 7, 3),
        ("เปิดไฟในห้องนั่งเล่น", 6, 3),
        ("打开 wifi", 3, 1.5),
        ("turn on the light", 4, 4),
        ("बत्ती जलाओ", 2, 2),
    ):
        assert least <= length_in_words(words(text)) <= most, text


def test_parts_of_a_text_without_spaces():
    assert parted("ที่นี่") == ["ที่", "นี่"]
    assert parted("で7時。") == ["で", "7", "時", "。"]
    assert parted("café") == ["café"]
    assert joined(parted("打开客厅的灯。")) == "打开客厅的灯。"
    assert joined(["play", "播", "放", "."]) == "play 播放 ."
