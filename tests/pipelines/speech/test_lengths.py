"""How long a recording may be for a model: what its run or its published folder tells, or a fixed length."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.pipelines.speech.lengths import UNKNOWN, Lengths, lengths_of
from tests.pipelines.speech import used


def trained(out: Path, **durations: list[float]) -> Path:
    """A finished run with sets of such durations; return one of its models."""
    sets = {
        name: pa.table({"id": [f"{name}{number}" for number in range(len(own))], "duration": own})
        for name, own in durations.items()
    }
    used.finished(out, sets)
    return out / "student" / "01"


def test_the_sets_that_a_run_has_trained_on_tell(tmp_path: Path) -> None:
    model = trained(tmp_path, labelled=[2.0, 3.0], unlabelled=[4.0] * 4, test=[90.0])
    assert lengths_of(str(model)) == Lengths(3.5)
    assert Lengths(3.5).whole == 7.0
    assert Lengths(3.5).describe() == (
        "recordings of over 7.0 s are cut into utterances: the model was trained on utterances of 3.5 s on average"
    )


@pytest.mark.parametrize(("mean", "whole"), [(0.5, 4.0), (12.3, 24.6), (18.0, 30.0), (None, UNKNOWN)])
def test_the_length_has_bounds(mean: float | None, whole: float) -> None:
    assert Lengths(mean).whole == pytest.approx(whole)


def test_a_model_from_elsewhere_tells_nothing(tmp_path: Path) -> None:
    trained(tmp_path / "run", labelled=[2.0])
    used.recogniser(tmp_path / "run" / "older" / "00")  # not of the run that finished last
    assert lengths_of(str(tmp_path / "run" / "older" / "00")) == Lengths(None)
    used.recogniser(tmp_path / "alone" / "00")
    assert lengths_of(str(tmp_path / "alone" / "00")) == Lengths(None)


@pytest.mark.parametrize("settings", [b"{", b"[]", b"{}", b'{"mean_utterance_seconds": "2"}'])
def test_the_settings_of_another_tool_tell_nothing(settings: bytes, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_bytes(settings)
    assert lengths_of(str(tmp_path)) == Lengths(None)


def test_a_damaged_run_does_not_cost_the_model(tmp_path: Path) -> None:
    model = trained(tmp_path, labelled=[2.0])
    (tmp_path / "run.json").write_text("{}")
    assert lengths_of(str(model)) == Lengths(None)


def test_a_published_model_tells(tmp_path: Path, gristmill) -> None:
    trained(tmp_path / "run", labelled=[2.0, 3.0])
    assert gristmill("publish", tmp_path / "run", "best", tmp_path / "model").exit_code == 0
    assert json.loads((tmp_path / "model" / "settings.json").read_text())["mean_utterance_seconds"] == 2.5
    assert lengths_of(str(tmp_path / "model")) == Lengths(2.5)
    assert "recordings of over 5.0 s are cut into utterances" in (tmp_path / "model" / "README.md").read_text()
