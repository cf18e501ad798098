"""Units and the spelling of texts."""

from __future__ import annotations

import pytest

from gristmill.models.speech.units import characters, normalise, sentencepiece


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don’t — STOP, room 5!", "don't stop room 5"),
        ("हिन्दी, भाषा।", "हिन्दी भाषा"),
        ("ภาษาไทยที่นี่", "ภาษาไทยที่นี่"),
        ("na\u0308her", "näher"),  # composed
        ("q\u0308y", "q\u0308y"),  # there is no composed character
        ("so ❤\ufe0f it", "so it"),  # a mark on a symbol
        (" \u0301a", "a"),
        ("so\u00adft\u2060er zero\u200bwidth", "softer zero width"),
        ("می\u200cخواهم\u200c آن", "می\u200cخواهم آن"),
        ("ශ්\u200dරී, क्\u200dष", "ශ්\u200dරී क्ष"),
        ("rock\u2018n\u02bcroll", "rock'n'roll"),
    ],
)
def test_a_text_is_spelled_by_letters_and_their_marks(text: str, expected: str) -> None:
    assert normalise(text) == expected


def test_a_script_with_marks_comes_back() -> None:
    units = characters(["हिन्दी में बोलो"])
    assert units.decode(units.encode("हिन्दी में बोलो")) == "हिन्दी में बोलो"


@pytest.mark.parametrize("kind", ["characters", "sentencepiece"])
def test_a_joiner_that_spells_comes_back(kind: str) -> None:
    texts = ["می\u200cخواهم آن را", "کتاب\u200cهای من", "ශ්\u200dරී ලංකා"] * 20
    units = characters(texts) if kind == "characters" else sentencepiece(texts, 40)
    for text in texts[:3]:
        assert units.decode(units.encode(text)) == text
