"""What a run says of where its results come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gristmill.pipelines.ledger import read_ledger
from gristmill.shards import processor


def levels(out: Path) -> tuple[str, str]:
    """The levels that ``run.json`` and the report name."""
    ledger = read_ledger(str(out))
    assert ledger is not None
    return ledger["processor"], json.loads((out / "report.json").read_text())["versions"]["processor"]


def test_levels_are_those_of_the_results_and_not_of_the_process(
    gristmill, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(processor, "label", lambda: "")  # as before levels were recorded
        assert gristmill("run", recipe).exit_code == 0
    for name in ("run.json", "report.json", "report.html"):
        (out / name).unlink()
    assert gristmill("run", recipe).exit_code == 0
    assert levels(out) == (processor.NOT_RECORDED, processor.NOT_RECORDED)
    assert gristmill("run", recipe, "--again", "twice").exit_code == 0
    assert levels(out)[0] == f"{processor.label()}, {processor.NOT_RECORDED}"
    assert gristmill("run", recipe, f"out={tmp_path}/new").exit_code == 0
    assert levels(tmp_path / "new") == (processor.label(), processor.label())
