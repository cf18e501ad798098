"""What no settings class of any recipe may take: ranges the wrong way round, infinity, and absurd sizes."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic.fields import FieldInfo

from gristmill.actors.speech.augment import MixSettings
from gristmill.shards.errors import SettingsError
from gristmill.shards.index import Cut
from gristmill.shards.settings import Settings
from tests.fingerprints import settings_classes


def every_field() -> Iterator[tuple[type[Settings], str, FieldInfo]]:
    for kind in settings_classes():
        for name, field in kind.model_fields.items():
            yield kind, name, field


def refusal(kind: type[Settings], name: str, value: Any) -> str:
    """Return the sentences about a value, among them those about settings that have no default."""
    with pytest.raises(SettingsError) as refused:
        kind(**{name: value})
    return str(refused.value)


def test_every_range_is_the_right_way_round() -> None:
    ranges = set()
    for kind, name, field in every_field():
        ends = typing.get_args(field.annotation)
        if typing.get_origin(field.annotation) is tuple and len(ends) == 2 and ends[1] is not Ellipsis:
            ranges.add(name)
            low, high = field.default
            assert low < high
            assert f"{name}: expected the smallest value first" in refusal(kind, name, [high, low]), kind
    assert {"c", "negatives", "snr", "noises", "rt60"} <= ranges


def test_the_shortest_recording_is_no_longer_than_the_longest() -> None:
    from gristmill.actors.speech.ingest import DurationSettings

    with pytest.raises(SettingsError, match="min_duration=3 is more than max_duration=2"):
        DurationSettings(min_duration=3, max_duration=2)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_no_number_is_infinite(value: float) -> None:
    tried = 0
    for kind, name, field in every_field():
        if field.annotation is float:
            tried += 1
            assert f"{name}: {value} is not right" in refusal(kind, name, value), kind
    assert tried > 50
    assert "finite" in refusal(MixSettings, "snr", [0, value])


def test_no_size_is_beyond_memory() -> None:
    sizes = {"dim", "layers", "heads", "units", "hidden", "beam", "batch", "batch_frames", "buckets", "rows"}
    tried = set()
    for kind, name, field in every_field():
        if name in sizes and field.annotation is int and kind is not Cut:
            tried.add(name)
            assert f"{name}: expected at most" in refusal(kind, name, 1_000_000_000), kind
    assert tried == sizes
