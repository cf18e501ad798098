"""Fingerprints survive growth: of every step and training of every config, and against every knob that is off."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import create_model

from gristmill.shards.errors import SettingsError
from gristmill.shards.settings import HOW, Settings
from tests.fingerprints import KEPT, defaults, fingerprints, settings_classes

HELP = "a change on purpose is kept by `python -m tests.fingerprints`"
KEEP: dict[str, dict[str, dict[str, Any]]] = json.loads(KEPT.read_text())


def test_every_step_and_training_of_every_config_has_the_fingerprint_it_had() -> None:
    now = fingerprints()
    for config, kept in KEEP["fingerprints"].items():
        for name, value in kept.items():
            assert now[config].get(name) == value, f"{config}: {name} would be made anew; {HELP}"
    assert now == KEEP["fingerprints"], f"steps or trainings that are not kept; {HELP}"


def test_no_default_changed_without_a_word() -> None:
    """A knob at its default is in no fingerprint, so that another default needs another version."""
    now = defaults()
    for name, kept in KEEP["defaults"].items():
        for knob, value in kept.items():
            assert now.get(name, {}).get(knob) == value, f"{name}.{knob}: raise the version of what it sets; {HELP}"
    assert now == KEEP["defaults"], f"settings that are not kept; {HELP}"


@pytest.mark.parametrize("kind", settings_classes(), ids=lambda kind: f"{kind.__module__}:{kind.__qualname__}")
def test_a_new_knob_that_is_off_changes_no_fingerprint(kind: type[Settings]) -> None:
    try:
        before = kind()
    except SettingsError:
        before = kind.model_construct(
            **dict.fromkeys((name for name, f in kind.model_fields.items() if f.is_required()), 1)
        )
    grown = create_model("Grown", __base__=kind, new_knob=(tuple[int, ...], ()))
    assert grown.model_construct(**dict(before)).identity() == before.identity()
    assert grown.model_construct(**dict(before), new_knob=(3,)).identity() == {**before.identity(), "new_knob": [3]}


def test_how_work_is_done_is_in_no_fingerprint() -> None:
    from pydantic import Field

    class Work(Settings):
        width: int = 1
        threads: int = Field(1, json_schema_extra=HOW)

    class Outer(Settings):
        work: Work = Work(width=2)

    assert Work(threads=8).identity() == {}
    assert Outer(work=Work(width=2, threads=8)).identity() == {}
    assert Outer(work=Work()).identity() == {"work": {}}
