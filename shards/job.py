"""A training job: what it is made of, and the artifact it commits."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from gristmill.shards import canonical, store
from gristmill.shards.artifact import Artifact, get_artifact, put_artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.process import prepare
from gristmill.shards.stage import Resources

CHECKPOINTS = "checkpoints"


class TrainContext(Protocol):
    """Where one rank of a training runs."""

    rank: int
    world_size: int

    def resume(self) -> bytes | None:
        """Return the newest checkpoint, or ``None`` at the start."""
        ...

    def report(self, metrics: Mapping[str, float], checkpoint: bytes | None = None) -> None:
        """Tell how it goes; each rank calls it equally often. Rank 0 hands the checkpoint over."""
        ...


@dataclass(frozen=True)
class TrainJob:
    """A training. ``config`` holds JSON values, and sealed sets and artifacts where the training reads them.

    ``loop`` names the function that trains: ``loop(config, context)`` with urls in place of sets and artifacts; on
    rank 0 it returns ``{"files": {name: bytes}, ...}``. ``ranks`` is how many processes train together: a part of
    the training itself, since gradients are summed in another order with another number. What is not ``stepwise`` is
    fitted at once, by one rank and without checkpoints (counts, a centroid): it is begun again when its worker is lost.
    """

    name: str
    config: Mapping[str, Any]
    loop: str = "gristmill.actors.speech.trainer:train"
    version: int = 1
    ranks: int = 1
    resources: Resources = Resources()
    stepwise: bool = True

    def __post_init__(self) -> None:
        if self.ranks > 1 and not self.stepwise:
            raise ValueError(f"training {self.name}: what is fitted at once has one rank, and {self.ranks} are asked")

    def identity(self) -> dict[str, Any]:
        """Return what the trained model depends on: digests stand for sets and artifacts."""
        config = _replaced(self.config, lambda value: {"digest": value.digest})
        return {
            "job": self.name,
            "loop": self.loop,
            "version": self.version,
            "ranks": self.ranks,
            "config": config,
        }

    def inputs(self) -> list[str]:
        """Return the digests of the sets and artifacts that it reads."""
        found: list[str] = []
        _replaced(self.config, lambda value: found.append(value.digest))
        return list(dict.fromkeys(found))

    def url(self, out: str) -> str:
        """Return the folder of its artifact, by name and fingerprint."""
        return store.join(out, self.name, canonical.digest(self.identity())[:16])

    def resolved(self) -> dict[str, Any]:
        """Return the config with urls in place of sets and artifacts."""
        return _replaced(self.config, lambda value: value.url)

    def run(self, url: str, context: TrainContext) -> None:
        """Train on this rank; rank 0 commits the artifact, then the checkpoints are no longer needed."""
        module, _, name = self.loop.partition(":")
        loop: Callable[..., dict[str, Any]] = getattr(importlib.import_module(module), name)
        prepare()
        result = loop(self.resolved(), context)
        if context.rank == 0:
            files = dict(result.pop("files"))
            files["training.json"] = canonical.dumps(result)
            put_artifact(url, files, self.identity(), deterministic=self.resources.gpus == 0)
            store.remove(store.join(url, CHECKPOINTS))

    def done(self, url: str) -> Artifact | None:
        """Return the artifact if the training was finished before."""
        return get_artifact(url)


def _replaced(value: Any, by: Callable[[SealedSet | Artifact], Any]) -> Any:
    if isinstance(value, SealedSet | Artifact):
        return by(value)
    if isinstance(value, Mapping):
        return {key: _replaced(inner, by) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(inner, by) for inner in value]
    return value
