"""Batches inside a shard, in a canonical order: the same rows share a batch on any machine (law 1)."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from gristmill.shards.errors import UserError
from gristmill.shards.stage import BatchLimits


def canonical_batches(table: pa.Table, limits: BatchLimits) -> list[np.ndarray]:
    """Return the row numbers of each batch: sorted by cost, then by position, and cut where a limit is reached.

    A batch costs its number of rows times the cost of its longest row, since shorter rows are padded. A row that costs
    more than ``max_cost`` is a batch by itself.
    """
    rows = np.arange(table.num_rows)
    if limits.cost is None:
        return [rows[start : start + limits.rows] for start in range(0, len(rows), limits.rows)]
    if limits.cost not in table.column_names:
        raise UserError(f"batches are cut by the column {limits.cost!r}, which is missing; found {table.column_names}")
    cost = np.nan_to_num(np.asarray(table.column(limits.cost).to_numpy(zero_copy_only=False), dtype=np.float64))
    rows = np.argsort(cost, kind="stable")
    batches, start = [], 0
    for end in range(1, len(rows) + 1):
        size = end - start
        if size > 1 and (size > limits.rows or size * cost[rows[end - 1]] > limits.max_cost):
            batches.append(rows[start : end - 1])
            start = end - 1
    if len(rows) > start:
        batches.append(rows[start:])
    return batches
