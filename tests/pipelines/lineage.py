"""What the lineage of a finished run lacks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from gristmill.pipelines.command.launch import carry_out
from gristmill.pipelines.config import load
from gristmill.pipelines.progress import RunProgress


def without_user(config: str, settings: Sequence[str], out: Path) -> list[str]:
    """Carry out a finished run again and return the names of results that nothing is made of and nobody reads.

    Its report has a node of each result, an edge of each use, and the rows, bytes and seconds of each.
    """
    done, busy = carry_out(load(config, [*settings, f"out={out}"]), RunProgress())
    assert not busy, "the run was finished"
    report = json.loads((out / "report.json").read_text())
    nodes = {node["digest"]: node for node in report["lineage"]}
    name = {digest: node["name"] for digest, node in nodes.items()}
    assert {one.digest for one in done.trace} == set(nodes)
    for one in done.trace:
        told = nodes[one.digest]
        assert {name[digest] for digest in one.inputs} - {told["name"]} <= {
            name[nodes_of(report, n)] for n in told["inputs"]
        }
        assert told["bytes"] > 0
        assert told["seconds"] is not None
        assert (told["rows"] is None) == (one.kind in ("artifact", "training"))
    page = (out / "report.html").read_text()
    assert page.count('<svg class="graph"') == 1
    return [node.name for node in done.plan.nodes if not node.users and not node.is_read]


def nodes_of(report: dict, name: str) -> str:
    """The digest of a node."""
    return next(node["digest"] for node in report["lineage"] if node["name"] == name)
