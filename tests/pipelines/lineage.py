"""What the lineage of a finished run lacks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from gristmill.pipelines.command.launch import carry_out
from gristmill.pipelines.config import load
from gristmill.pipelines.progress import RunProgress
from gristmill.shards import store


def without_user(config: str, settings: Sequence[str], out: Path) -> list[str]:
    """Carry out a finished run again and return the names of results that nothing is made of and nobody reads.

    Its report has a node of each result, an edge of each use, and the rows, bytes and seconds of each.
    """
    done, busy = carry_out(load(config, [*settings, f"out={out}"]), RunProgress())
    assert not busy, "the run was finished"
    report = json.loads((out / "report.json").read_text())
    nodes = {node["name"]: node for node in report["lineage"]}
    assert len(nodes) == len(report["lineage"]) == len({one.url for one in done.trace})
    digests = {node["digest"] for node in report["lineage"]}
    for one in done.trace:
        (told,) = (nodes[name] for name in (one.name, f"{one.name} {store.last_name(one.url)[:6]}") if name in nodes)
        assert told["digest"] == one.digest
        made_of = {digest for digest in one.inputs if digest in digests}  # a model from outside has no node
        assert {nodes[name]["digest"] for name in told["inputs"]} | {one.digest} >= made_of
        assert told["bytes"] > 0
        assert told["seconds"] is not None
        assert (told["rows"] is None) == (one.kind in ("artifact", "training"))
    page = (out / "report.html").read_text()
    assert page.count('<svg class="graph"') == 1
    return [node.name for node in done.plan.without_user()]
