"""Read a sealed set with Gristmill, pyarrow, Hugging Face ``datasets`` and torch (needs ``pip install datasets``).

python examples/read_sealed_set.py
"""

import tempfile
from collections.abc import Iterator

from gristmill.shards import store
from gristmill.shards.dataset import SealedSet, open_sealed, seal_tables

import datasets
import pyarrow as pa
import pyarrow.dataset
import torch


class Rows(torch.utils.data.IterableDataset):
    """The rows of a sealed set, shard by shard; each worker of a loader reads shards of its own."""

    def __init__(self, sealed: SealedSet, columns: list[str]) -> None:
        self.sealed, self.columns = sealed, columns

    def __iter__(self) -> Iterator[dict]:
        info = torch.utils.data.get_worker_info()
        first, step = (info.id, info.num_workers) if info else (0, 1)
        for shard in range(first, len(self.sealed.shards), step):
            yield from self.sealed.read(shard, self.columns).to_pylist()


def main(folder: str) -> None:
    """Seal a small set and read it in four ways."""
    rows = [{"id": f"r/{n}", "text": f"request {n}", "duration": n / 10} for n in range(10)]
    seal_tables(f"{folder}/requests", "requests", (pa.Table.from_pylist(rows[n : n + 4]) for n in (0, 4, 8)))

    sealed = open_sealed(f"{folder}/requests")  # a step's is OUT/NAME/FINGERPRINT
    print(f"{sealed.records} records, {sealed.total('duration')} s, digest {sealed.digest[:12]}")
    paths = [store.join(sealed.url, shard.path) for shard in sealed.shards]  # the seal lists them: no other file counts

    long = pyarrow.dataset.dataset(paths).to_table(filter=pyarrow.dataset.field("duration") > 0.5)
    print(f"pyarrow: {long.num_rows} rows over 0.5 s")
    loaded = datasets.Dataset.from_parquet(paths, cache_dir=f"{folder}/cache")
    print(f"datasets: {loaded.num_rows} rows of {loaded.column_names}")
    for batch in torch.utils.data.DataLoader(Rows(sealed, ["text", "duration"]), batch_size=5):
        print(f"torch: {batch['text'][0]!r} to {batch['text'][-1]!r}, {batch['duration'].sum():.1f} s")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(name)
