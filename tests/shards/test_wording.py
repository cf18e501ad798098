"""What is said of wrong names."""

from __future__ import annotations

import pytest

from gristmill.shards.wording import nearest, some_of


@pytest.mark.parametrize(
    ("given", "there", "meant"),
    [
        ("transcription", ["audio_filepath", "duration", "speaker"], None),
        ("sentence", ["utterance", "text"], None),
        ("text", ["texts_normalised_by_hand", "speaker"], "texts_normalised_by_hand"),
        ("maximum", ["min", "max"], "max"),
        ("too_shrt", ["too_long", "too_short"], "too_short"),
    ],
)
def test_a_name_is_suggested_only_if_it_is_near(given: str, there: list[str], meant: str | None) -> None:
    assert nearest(given, there) == (f", did you mean {meant!r}?" if meant else "")


def test_choices_are_few_and_the_nearest_first() -> None:
    names = [f"step_{number}" for number in range(20)]
    said = some_of("too_shrt", [*names, "too_short"])
    assert said.startswith("one of too_short, ")
    assert said.endswith(", or 11 more")
    assert some_of("x", ["y"]) == "one of y"
