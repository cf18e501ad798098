"""Checkpoints of a training, below the URL of its artifact: they outlive workers and drivers."""

from __future__ import annotations

from gristmill.shards import store
from gristmill.shards.job import CHECKPOINTS

KEPT = 2


class Checkpoints:
    """The numbered checkpoints of one training. Only rank 0 writes; a checkpoint is complete or absent."""

    def __init__(self, url: str) -> None:
        self.url = store.join(url, CHECKPOINTS)

    def newest(self) -> str | None:
        """Return the name of the newest checkpoint."""
        names = self._names()
        return names[-1] if names else None

    def read(self, name: str) -> bytes:
        """Return the bytes of a checkpoint."""
        return store.read_bytes(store.join(self.url, name))

    def write(self, data: bytes) -> None:
        """Add a checkpoint after the newest and remove those no longer needed."""
        names = self._names()
        number = int(names[-1].removeprefix("step-")) + 1 if names else 1
        store.write_bytes(store.join(self.url, f"step-{number:06d}"), data)
        for name in names[: 1 - KEPT]:
            store.remove(store.join(self.url, name))

    def _names(self) -> list[str]:
        return [name for name in store.list_names(self.url) if name.startswith("step-")]
