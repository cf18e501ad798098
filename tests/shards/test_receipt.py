from __future__ import annotations

from dataclasses import replace

import pytest

from gristmill.shards import store
from gristmill.shards.errors import Alarm
from gristmill.shards.receipt import Receipt, commit, committed_shards, find_receipt, read_receipts, store_table
from tests.pipelines.tiny import texts


def make(url: str, rows: int = 3, shard: str = "000000", **attempt: object) -> Receipt:
    data = store_table(url, "data", shard, texts(rows))
    return Receipt(shard, data, None, None, rows, rows, 0, 0, attempt=dict(attempt))


def test_a_receipt_is_read_back_unchanged(root: str) -> None:
    made = make(root, host="here")
    receipt = commit(root, made)
    assert receipt == replace(made, made_in=store.last_name(root))
    assert find_receipt(root, "000000") == receipt
    assert committed_shards(root) == ["000000"]
    assert list(read_receipts(root, ["000000"])) == [receipt]
    assert find_receipt(root, "000001") is None


def test_a_late_attempt_with_the_same_bytes_changes_nothing(root: str) -> None:
    first = commit(root, make(root, host="first"))
    again = commit(root, make(root, host="second"))
    assert again == first
    assert again.attempt == {"host": "first"}
    assert store.exists(store.join(root, first.data.path))


def test_a_late_attempt_with_other_bytes_is_an_alarm_and_leaves_nothing(root: str) -> None:
    first = commit(root, make(root))
    other = make(root, rows=4)
    with pytest.raises(Alarm, match="000000 came out twice"):
        commit(root, other)
    assert not store.exists(store.join(root, other.data.path))
    assert store.exists(store.join(root, first.data.path))


def test_nondeterministic_work_takes_the_committed_shard(root: str) -> None:
    first = commit(root, make(root))
    assert commit(root, make(root, rows=4), deterministic=False) == first


def test_the_digest_excludes_worker_and_duration() -> None:
    receipt = Receipt("0", None, None, None, 1, 1, 0, 0)  # type: ignore[arg-type]
    assert replace(receipt, attempt={"seconds": {"x": 1}}).digest == receipt.digest
