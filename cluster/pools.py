"""The pools of a step: the number of workers of each stage, and the resources each requests from the scheduler.

A worker requests 95 % of the CPUs that its stage declares; the rest of the cluster is for the tasks that read and
commit. If the minimum workers of all pools request more CPUs than there are, requests are scaled down so that all of
them start: even three stages run on one core, sharing it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from gristmill.shards.errors import UserError
from gristmill.shards.stage import Resources, Stage

Labels = tuple[tuple[str, str], ...]
WORKER_SHARE = 0.95  # of its stage's CPUs that a worker requests
TASK_CPUS = (
    0.005  # of a task that reads or commits: ten fit beside one worker per CPU, and no autoscaler adds a machine
)


@dataclass(frozen=True)
class Capacity:
    """CPUs and GPUs of a cluster."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class Pool:
    """Workers that each run one or more consecutive stages of a step."""

    places: tuple[int, ...]
    cpus: float  # requested per worker, as are gpus and memory (bytes)
    gpus: float
    memory: int | None
    least: int
    most: int
    initial: int
    labels: Labels = ()


def selector(avoid: frozenset[str], labels: Labels = ()) -> dict[str, str] | None:
    """Return Ray's label selector of nodes with these labels that are not to be avoided; ``None`` for any node."""
    where = {"ray.io/node-id": f"!in({','.join(sorted(avoid))})"} if avoid else {}
    return {**dict(labels), **where} or None


def plan_pools(stages: Sequence[Stage], capacity: Capacity, shards: int, now: Capacity | None = None) -> list[Pool]:
    """Return the pools of a step on a cluster of a capacity, or one that may grow to it and has only ``now`` yet.

    Consecutive stages that declare the same resources and no GPU share their workers, so that tables between them stay
    in memory. A GPU pool requests its full size at once, which makes an autoscaler add machines; it is not shrunk to
    the machines present. A single CPU pool starts with as many workers as fit now.
    """
    now = now or capacity
    groups: list[tuple[tuple[int, ...], Resources]] = []
    for (resources, _), members in itertools.groupby(
        enumerate(stages), key=lambda item: (item[1].resources, item[0] if item[1].resources.gpus else None)
    ):
        groups.append((tuple(place for place, _ in members), resources))
    asked = sum(resources.cpus * min(resources.min_workers, shards) for _, resources in groups)
    scale = WORKER_SHARE * min(1.0, capacity.cpus / asked if asked else 1.0)
    waits = sum(bool(resources.gpus) for _, resources in groups) == 1 and now.gpus < capacity.gpus
    pools = []
    for places, resources in groups:
        most = resources.max_workers or _fit(stages[places[0]], capacity)
        least = min(resources.min_workers, most, shards)
        most = min(max(most, least), shards)
        if resources.gpus:
            initial = most
            least = most if waits else least
        else:
            initial = max(least, min(most, _fit(stages[places[0]], now))) if len(groups) == 1 else least
        # Ray's resolution is four decimals.
        share = round(resources.cpus * scale, 4)
        pools.append(
            Pool(places, share, resources.gpus, resources.memory, least, most, initial, resources.labels),
        )
    return pools


def _fit(stage: Stage, capacity: Capacity) -> int:
    need = stage.resources
    if need.gpus:
        # A fraction of a GPU must lie on one device.
        fit = int(capacity.gpus) * int(1 / need.gpus + 1e-9) if need.gpus <= 1 else int(capacity.gpus / need.gpus)
        if not fit:
            raise UserError(
                f"stage {stage.name} needs {need.gpus:g} GPU for each worker and the cluster has {capacity.gpus:g}; "
                "set its gpus to 0, or resources.most.gpus to what the cluster's autoscaler may add"
            )
        return fit
    return max(1, int(capacity.cpus / need.cpus)) if need.cpus else max(1, int(capacity.cpus))
