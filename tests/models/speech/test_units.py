"""Units and the spelling of texts."""

from __future__ import annotations

import pytest

from gristmill.models.speech.units import characters, normalise


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
    ],
)
def test_a_text_is_spelled_by_letters_and_their_marks(text: str, expected: str) -> None:
    assert normalise(text) == expected


def test_a_script_with_marks_comes_back() -> None:
    units = characters(["हिन्दी में बोलो"])
    assert units.decode(units.encode("हिन्दी में बोलो")) == "हिन्दी में बोलो"
