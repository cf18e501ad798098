"""A training job: its settings and inputs, and the artifact it commits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from gristmill.shards import canonical, processor, store
from gristmill.shards.artifact import Artifact, find_made, put_artifact
from gristmill.shards.code import code_of
from gristmill.shards.dataset import SealedSet
from gristmill.shards.names import name_of, named
from gristmill.shards.plan import digests
from gristmill.shards.process import prepare
from gristmill.shards.settings import Settings
from gristmill.shards.stage import ArtifactRef, Resources
from gristmill.shards.verify import check_ref

CHECKPOINTS = "checkpoints"
STORAGE = ".ray-train"  # Ray Train's files about a group, beside the first job; removed at the end
PROGRESS = "progress.json"  # beside the checkpoints: the newest point of the curves, for `gristmill status`


class TrainListener:
    """Hears of trainings while they run, by the URLs of their artifacts, from any thread; does nothing."""

    def point(self, url: str, metrics: Mapping[str, float]) -> None:
        """Called with points of a training's curves: ``step``, and if known ``steps`` (of all) and ``loss``."""

    def ended(self, url: str, seconds: float | None = None) -> None:
        """Called when a training or fit has committed its artifact; ``seconds``, if known, are those of its work."""


class TrainContext(Protocol):
    """The environment of one rank of a training."""

    rank: int
    world_size: int
    trial_steps: int | None
    """In a trial (:mod:`gristmill.pipelines.command.plan`): the number of optimiser steps per phase to stop after.
    A fit has no steps; for it the number is set where models before it stopped early, and may be too poor for it."""

    def resume(self) -> bytes | None:
        """Return the newest checkpoint, or ``None`` at the start."""
        ...

    def report(self, metrics: Mapping[str, float], checkpoint: bytes | None = None) -> None:
        """Report the metrics of a step; all ranks must call it equally often, and rank 0 passes the checkpoint."""
        ...


class _Job(ABC):
    """What trainings, fits and artifacts have in common: a folder named by what they depend on."""

    name: str

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """The prefix of the fingerprint that names its folder."""

    def url(self, out: str) -> str:
        """Return the folder of its artifact, by name and fingerprint."""
        return store.join(out, self.name, self.fingerprint)

    def done(self, url: str) -> Artifact | None:
        """Return the artifact if it is committed; raises as :func:`find_made`."""
        return find_made(url)


@dataclass(frozen=True)
class TrainJob(_Job):
    """A training: a loop, its settings, and its input sets and artifacts.

    ``loop(settings, context, **inputs)`` trains, with urls in place of sets, artifacts and references (also inside
    mappings and lists); on rank 0 it returns ``{"files": {name: bytes}, ...}``. It is given as a function or by name.

    ``ranks`` is the number of processes that train together. It is part of the fingerprint, since it changes the order
    in which gradients are summed. A job that is not ``stepwise`` is fitted by one rank without checkpoints (counts, a
    centroid), and is restarted if its worker is lost.

    Example:
        >>> def count(settings, context, *, words):
        ...     return {"files": {"n.txt": str(len(words)).encode()}}
        >>> job = TrainJob("count", count, inputs={"words": ["on", "off"]}, stepwise=False)
        >>> job.identity()
        {'job': 'count', 'inputs': {'words': ['on', 'off']}}
        >>> job.url("out") == f"out/count/{job.fingerprint}"
        True
    """

    name: str
    loop: str | Callable[..., dict[str, Any]]
    settings: Settings = Settings()
    inputs: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1
    ranks: int = 1
    resources: Resources = Resources()
    stepwise: bool = True
    processor: str = field(default_factory=processor.level)  # the level that workers are to compute at

    def __post_init__(self) -> None:
        if callable(self.loop):
            object.__setattr__(self, "loop", name_of(self.loop))
        if self.ranks > 1 and not self.stepwise:
            raise ValueError(f"training {self.name}: a job that is not stepwise has one rank, not {self.ranks}")

    def identity(self) -> dict[str, Any]:
        """Return everything that the trained model depends on, without defaults; sets and artifacts by their
        digests."""
        found = {
            "version": self.version if self.version != 1 else None,
            "ranks": self.ranks if self.ranks != 1 else None,
            "settings": self.settings.identity(),
            "inputs": _replaced(self.inputs, lambda value: {"digest": value.digest}),
        }
        return {"job": self.name} | {key: value for key, value in found.items() if value}

    def code(self) -> dict[str, Any]:
        """Return what is kept of the code of its loop, in no fingerprint (:mod:`gristmill.shards.code`)."""
        return code_of({self.name: str(self.loop)})

    def made_of(self) -> list[SealedSet | Artifact]:
        """Return the sets and artifacts that it reads, without duplicates."""
        found: dict[str, SealedSet | Artifact | ArtifactRef] = {}
        _replaced(self.inputs, lambda value: found.setdefault(value.digest, value))
        return [one for one in found.values() if not isinstance(one, ArtifactRef)]

    @property
    def fingerprint(self) -> str:
        """The prefix of the fingerprint of :meth:`identity` that names folders."""
        return canonical.fingerprint(self.identity())[:16]

    def run(self, url: str, context: TrainContext) -> None:
        """Train on this rank; rank 0 commits the artifact and then removes the checkpoints.

        Raises:
            UserError: this machine, or what this process has loaded, is not of the run's level.
        """
        processor.keep(self.processor)
        loop: Callable[..., dict[str, Any]] = named(str(self.loop))
        prepare()
        for given in self.made_of():  # the loop opens them by URL
            check_ref(given.ref)
        result = loop(self.settings, context, **_replaced(self.inputs, lambda value: value.url))
        if context.rank == 0:
            files = dict(result.pop("files"))
            files["training.json"] = canonical.dumps(result)
            put_artifact(url, files, self.identity(), deterministic=self.resources.gpus == 0, code=self.code())
            store.remove(store.join(url, CHECKPOINTS))


@dataclass(frozen=True)
class BuildJob(_Job):
    """The making of an artifact by a function, like a fit; see :meth:`gristmill.pipelines.run.Run.artifact`."""

    name: str
    make: Callable[[str], Mapping[str, bytes] | object]
    given: Mapping[str, Any]  # its identity, but for the name and the inputs
    inputs: tuple[SealedSet | Artifact, ...] = ()
    on_driver: bool = False
    processor: str = field(default_factory=processor.level)

    ranks: ClassVar[int] = 1
    stepwise: ClassVar[bool] = False
    resources: ClassVar[Resources] = Resources()

    def identity(self) -> dict[str, Any]:
        """Return everything that the artifact depends on."""
        return {"artifact": self.name, "inputs": [one.digest for one in self.inputs], **digests(self.given)}

    @property
    def fingerprint(self) -> str:
        """The prefix of the fingerprint that names its folder."""
        return canonical.fingerprint([self.name, digests(self.given), [one.digest for one in self.inputs]])[:16]

    def made_of(self) -> list[SealedSet | Artifact]:
        """Return the sets and artifacts that it reads."""
        return list(self.inputs)

    def code(self) -> dict[str, Any]:
        """Return nothing: the code of the function is not looked at."""
        return {}

    def run(self, url: str, context: TrainContext | None = None) -> None:
        """Make the artifact and commit it.

        Raises:
            UserError: this machine, or what this process has loaded, is not of the run's level.
        """
        processor.keep(self.processor)
        prepare()
        made = self.make(url)
        if isinstance(made, Mapping):
            put_artifact(url, made, self.identity())


Job = TrainJob | BuildJob


def _replaced(value: Any, by: Callable[[SealedSet | Artifact | ArtifactRef], Any]) -> Any:
    if isinstance(value, SealedSet | Artifact | ArtifactRef):
        return by(value)
    if isinstance(value, Mapping):
        return {key: _replaced(inner, by) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(inner, by) for inner in value]
    return value
