"""Connected components of interpretations over all shards: those that chains of some users connect.

A fit holds the numbers of nodes, and some transitions at a time: per ten million nodes 240 MB, and 200 MB beside that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field
from safetensors.numpy import load, save
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from gristmill.shards.artifact import read_file
from gristmill.shards.dataset import open_sealed
from gristmill.shards.job import TrainContext
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits

FILE = "components.safetensors"  # in the artifact
ALONE, PERSONAL = "alone", "personal"  # reasons of nodes that are in no component
_NODE = ["node", "users"]
_EDGES = 1 << 22  # transitions that are held at a time


class ComponentSettings(Settings):
    """What may be pooled."""

    least_users: int = Field(3, ge=1)
    """Users of an interpretation, at least. One of fewer is personal, such as the name of somebody's own device: it is
    neither rewritten nor what another one is rewritten to."""


def fit(settings: ComponentSettings, context: TrainContext, *, data: str) -> dict[str, Any]:
    """Return the nodes that are connected to others, and the component of each: its node with the smallest number.

    ``data`` is the URL of a set of :class:`gristmill.actors.sessions.nodes.CountNodes`.
    """
    found = [table.filter(pc.field("users") >= settings.least_users) for table in open_sealed(data).tables(_NODE)]
    nodes = np.sort(np.concatenate([np.zeros(0, np.int64), *(table["node"].to_numpy() for table in found)]))
    labels, edges = np.arange(len(nodes), dtype=np.int32), 0
    for begin, end in _edges(data, nodes):
        edges += len(begin)
        labels = _united(labels, labels[begin], labels[end])
    sizes = np.bincount(labels, minlength=1)
    connected = sizes[labels] > 1
    first = np.zeros(len(sizes), np.int64)
    order = np.arange(len(nodes))[::-1]
    first[labels[order]] = nodes[order]  # the smallest is the last to be set
    size = int(sizes.max()) if len(nodes) else 0
    told = {"nodes": len(nodes), "edges": edges, "components": int((sizes > 1).sum()), "largest": size}
    context.report({"step": 0, **{name: float(value) for name, value in told.items()}})
    return {"files": {FILE: save({"nodes": nodes[connected], "components": first[labels][connected]})}, **told}


def _edges(data: str, nodes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the transitions between nodes, as their places, some at a time."""
    held: list[tuple[np.ndarray, np.ndarray]] = []
    for table in open_sealed(data).tables(["node", "targets"]):
        lists = table["targets"].combine_chunks()
        sizes = pc.list_value_length(lists).to_numpy()
        begin, known = _places(nodes, np.repeat(table["node"].to_numpy(), sizes))
        end, also = _places(nodes, lists.flatten().to_numpy())
        both = known & also & (begin != end)
        held.append((begin[both], end[both]))
        if sum(len(one) for one, _ in held) >= _EDGES:
            yield np.concatenate([one for one, _ in held]), np.concatenate([one for _, one in held])
            held = []
    if any(len(one) for one, _ in held):
        yield np.concatenate([one for one, _ in held]), np.concatenate([one for _, one in held])


def _places(nodes: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of numbers among sorted nodes, and whether they are there."""
    place = np.searchsorted(nodes, wanted).astype(np.int32)
    place[place == len(nodes)] = 0
    return place, nodes[place] == wanted if len(nodes) else np.zeros(len(wanted), bool)


def _united(labels: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the labels after those of some pairs are made one."""
    size = int(labels.max()) + 1
    graph = sparse.coo_array((np.ones(len(begin), np.int8), (begin, end)), shape=(size, size))
    return connected_components(graph, directed=False)[1].astype(np.int32)[labels]


class Place(Actor):
    """Adds ``component`` to nodes; rejects those that are in none."""

    name = "place"
    batch = BatchLimits(rows=1 << 14)
    adds = (pa.field("component", pa.int64()),)
    columns = ("node", "users")
    settings: ComponentSettings

    def __init__(self, settings: ComponentSettings, components: str) -> None:
        super().__init__(settings)
        stored: Mapping[str, np.ndarray] = load(read_file(components, FILE))
        self._nodes, self._components = stored["nodes"], stored["components"]

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``component`` and ``reject_reason``."""
        place, known = _places(self._nodes, batch["node"].to_numpy())
        found = self._components[place] if len(self._nodes) else np.zeros(len(place), np.int64)
        few = pc.less(batch["users"], self.settings.least_users)
        reason = pc.if_else(pa.array(known), pa.scalar(None, pa.string()), pc.if_else(few, PERSONAL, ALONE))
        batch = batch.append_column("component", pa.array(found, mask=~known))
        return batch.append_column("reject_reason", reason)
