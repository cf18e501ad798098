"""The file of requests that are worth annotating, for annotators, which is read back as seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gristmill.pipelines.progress import plural
from gristmill.pipelines.report.report import ToDo
from gristmill.shards import store
from gristmill.shards.dataset import SealedSet

NAME = "to_annotate_{}.jsonl"


def write_proposals(out: str, proposed: Mapping[str, SealedSet]) -> list[ToDo]:
    """Write the proposed requests of each function as JSON lines, with the recogniser's labels to be corrected.

    A line has ``id``, ``text``, ``intent``, ``slots`` (name, value) and ``confidence``: what an annotator has corrected
    is a file of seeds. Returns what an annotator is to do with those that hold some.
    """
    left = []
    for function, made in proposed.items():
        lines = [
            json.dumps(_line(row), ensure_ascii=False)
            for table in made.tables(["id", "text", "intent", "slots", "confidence"])
            for row in table.to_pylist()
        ]
        url = store.join(out, NAME.format(function))
        store.write_changed(url, "".join(f"{line}\n" for line in lines).encode())  # a finished run writes nothing
        if lines:
            what = f"{plural(len(lines), 'request')} of {function} worth annotating"
            left.append(ToDo(NAME.format(function), f"{what} (correct a copy, and give it beside the seeds)"))
    return left


def _line(row: Mapping[str, Any]) -> dict[str, Any]:
    slots = [{name: slot[name] for name in ("name", "value")} for slot in row["slots"]]
    return {**row, "slots": slots, "confidence": round(row["confidence"], 4)}
