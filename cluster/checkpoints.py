"""Checkpoints of a training, below the URL of its artifact: they outlive workers and drivers."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from gristmill.shards import canonical, checked, store
from gristmill.shards.errors import Damaged
from gristmill.shards.job import CHECKPOINTS, PROGRESS

KEPT = 2
NOTE_EVERY = 10.0  # seconds between notes


class Checkpoints:
    """The numbered checkpoints of one training. Only rank 0 writes; a checkpoint is complete or absent.

    Each is named by its digest too (``step-000004-<sha>``): one whose bytes are others is passed over, and the training
    goes on from the one before.
    """

    def __init__(self, url: str) -> None:
        self.url = store.join(url, CHECKPOINTS)
        self.noted = time.monotonic()

    def newest(self) -> str | None:
        """Return the name of the newest checkpoint that is whole."""
        for name in reversed(self._names()):
            with contextlib.suppress(Damaged):
                if self._whole(name, checked.present(store.join(self.url, name))):
                    return name
            print(
                f"gristmill: {store.join(self.url, name)}: the checkpoint is damaged; the one before it is taken",
                file=sys.stderr,
            )
        return None

    def read(self, name: str) -> bytes:
        """Return the bytes of a checkpoint.

        Raises:
            RuntimeError: they are not those that were written, though they were when the training was resumed.
        """
        data = store.read_bytes(store.join(self.url, name))
        if not self._whole(name, data):
            raise RuntimeError(f"{store.join(self.url, name)}: the checkpoint changed while it was read")
        return data

    def write(self, data: bytes) -> None:
        """Add a checkpoint after the newest and remove those no longer needed."""
        names = self._names()
        number = int(names[-1].split("-")[1]) + 1 if names else 1
        store.write_bytes(store.join(self.url, f"step-{number:06d}-{canonical.sha256(data)}"), data)
        for name in names[: 1 - KEPT]:
            store.remove(store.join(self.url, name))

    def note(self, metrics: Mapping[str, float]) -> None:
        """Write a point of the curves for those who look at the run, unless the last note is fresh."""
        if time.monotonic() - self.noted >= NOTE_EVERY and "step" in metrics:
            self.noted = time.monotonic()
            written = {name: float(metrics[name]) for name in ("step", "steps", "loss") if name in metrics}
            written |= {"at": time.time(), "steps_per_second": float(metrics.get("steps_per_second", 0.0))}
            with contextlib.suppress(OSError):  # a note for onlookers is worth no training
                store.write_bytes(store.join(self.url, PROGRESS), canonical.dumps(written))

    def noted_point(self) -> dict[str, Any]:
        """Return the point that was noted last; empty if there is none."""
        try:
            return dict(json.loads(checked.present(store.join(self.url, PROGRESS)) or b"{}"))
        except (ValueError, TypeError):  # it is not as it was written
            return {}

    @staticmethod
    def _whole(name: str, data: bytes | None) -> bool:
        return data is not None and canonical.sha256(data) == name.rpartition("-")[2]

    def _names(self) -> list[str]:
        return [name for name in store.list_names(self.url) if name.startswith("step-")]
