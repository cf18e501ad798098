"""Several ranks of a training on one machine: processes joined by gloo, which do one thing after another."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import torch.distributed

from gristmill.cluster.inprocess import InProcessContext


class Killed(Exception):
    """Raised where a training is ended."""


class RankContext(InProcessContext):
    """One rank of a training; with ``die_at``, it dies once it has reported that step."""

    def __init__(self, url: str, rank: int = 0, world_size: int = 1, die_at: int | None = None) -> None:
        super().__init__(url)
        self.rank, self.world_size, self.die_at = rank, world_size, die_at

    def resume(self) -> bytes | None:
        """Return the newest checkpoint; all ranks get the one that rank 0 finds."""
        if self.world_size == 1:
            return super().resume()
        found = [self.checkpoints.newest() if self.rank == 0 else None]
        torch.distributed.broadcast_object_list(found)
        return None if found[0] is None else self.checkpoints.read(found[0])

    def report(self, metrics: Mapping[str, float], checkpoint: bytes | None = None) -> None:
        """Store the checkpoint of rank 0."""
        super().report(metrics, checkpoint if self.rank == 0 else None)
        if self.die_at is not None and metrics["step"] >= self.die_at:
            raise Killed


class Ranks:
    """``count`` processes; calling it runs ``do(rank, count, *args)`` in each, and returns what rank 0 returns."""

    def __init__(self, count: int, folder: Path) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.pipes, self.processes = [], []
        for rank in range(count):
            here, there = spawn.Pipe()
            process = spawn.Process(target=_serve, args=(rank, count, str(folder / "store"), there), daemon=True)
            process.start()
            self.pipes.append(here)
            self.processes.append(process)

    def __call__(self, do: Callable[..., Any], *args: Any) -> Any:
        """Run it in all ranks; an error of one is raised."""
        for pipe in self.pipes:
            pipe.send((do, args))
        answers = [pipe.recv() for pipe in self.pipes]
        for _, error in answers:
            if error is not None:
                raise error
        return answers[0][0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join(30)


def _serve(rank: int, count: int, store: str, pipe: Any) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=count)
    while (asked := pipe.recv()) is not None:
        do, args = asked
        try:
            pipe.send((do(rank, count, *args), None))
        except BaseException as error:  # pytest's own failures too
            pipe.send((None, RuntimeError(f"rank {rank}: {error!r}")))
    torch.distributed.destroy_process_group()
