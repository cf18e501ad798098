"""A set that was cleaned is made again on Ray, to the digest that it had in-process."""

from __future__ import annotations

from pathlib import Path

import pytest

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.cluster.ray_runner import RayRunner
from gristmill.pipelines.command.clean import clean_output
from gristmill.pipelines.run import Run
from gristmill.pipelines.unused import CleaningChoice
from gristmill.shards.audit import audit_below
from tests.pipelines.cleaned import make

pytestmark = pytest.mark.usefixtures("ray_session")


def test_a_cleaned_set_is_made_again_on_ray(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    first = Run(out, InProcessRunner())
    make(first)
    first.write_ledger("cleaned", "")
    found = clean_output(out, CleaningChoice(intermediate=True))
    assert [one.path.partition("/")[0] for one in found.unused] == ["noisy"]
    changed = Run(out, RayRunner(2))
    make(changed, 2)
    changed.finish()
    assert [one.name for one in changed.trace if one.kept] == ["texts"]
    undisturbed = Run(str(tmp_path / "whole"), InProcessRunner())
    make(undisturbed, 2)
    undisturbed.finish()
    assert [(one.name, one.digest) for one in changed.trace] == [(one.name, one.digest) for one in undisturbed.trace]
    assert not [gap for result in audit_below(out) for gap in result.gaps]
