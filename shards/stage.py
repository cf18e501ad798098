"""Stages: an actor, its settings, the limits of a batch and the columns it adds.

A stage refers to its actor by name (``gristmill.actors.speech.features:LogMel``), so that it is sent to workers as
text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from inspect import get_annotations
from typing import Any, ClassVar, get_type_hints

import pyarrow as pa

from gristmill.shards.errors import UserError
from gristmill.shards.names import name_of, named
from gristmill.shards.process import prepare
from gristmill.shards.random import RecordRandom
from gristmill.shards.settings import Settings

GROUP = pa.field("group", pa.string())  # of a dealt row: the text of its key
PART = pa.field("part", pa.int32())  # of a dealt row: which of the parts it is in
PARTS = b"gristmill.parts"  # schema metadata of a dealt set: their number
RECORDS = pa.field("records", pa.int64())  # of a merged row: how many records its group has
MERGED = pa.schema([pa.field("id", pa.string()), pa.field("parent_id", pa.string()), RECORDS])
BatchFunction = Callable[[pa.Table], pa.Table]  # a loaded actor: a function from batch to batch


@dataclass(frozen=True)
class ArtifactRef:
    """A reference to what a stage uses beside its rows: its URL, and the digest of its content.

    ``commit`` names the file that commits it, if this project committed it (``artifact.json``, ``seal.json``): then the
    digest is compared when a worker loads the stage.
    """

    url: str
    digest: str
    commit: str = ""


@dataclass(frozen=True)
class Resources:
    """The resources of one worker of a stage, and the number of workers (``None``: as many as fit)."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory: int | None = None  # bytes
    min_workers: int = 1
    max_workers: int | None = None
    labels: tuple[tuple[str, str], ...] = ()  # of the nodes to run on, as in Ray's label selectors


@dataclass(frozen=True)
class BatchLimits:
    """The limits of a batch.

    ``cost`` names a numeric column (seconds, tokens); a batch is padded to its longest row, so its cost is
    rows x longest. ``None`` limits the rows only.
    """

    rows: int = 64
    cost: str | None = None
    max_cost: float = float("inf")

    def identity(self) -> dict[str, Any]:
        """Return the limits that are not at their default."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}


@dataclass(frozen=True)
class Stage:
    """An actor with its settings, as one part of a step.

    The fingerprint covers all fields that are not at their default, except ``actor``, ``columns``, ``resources``,
    ``measures``, ``totals`` and the artifacts' urls.

    ``params`` are an actor's settings, or the arguments of a plain class. ``columns`` are the columns it reads, if
    declared: an input that lacks one is rejected before any work. ``measures`` names numeric columns that the actor
    returns and whose mean is logged while the step runs; those not in ``adds`` are not stored. ``totals`` names numeric
    columns whose sums over a shard's rows are kept in its receipt and in the seal, here and in each later step that
    still has the column. ``keeps`` are the columns of its input that it keeps beside ``id``, if not all; then no others
    are read than these and ``columns``.

    ``parts`` and ``merges`` are for rows by key (:mod:`gristmill.shards.exchange`). ``parts`` names a numeric column by
    which a shard's rows are sorted when it is committed, each value a row group. A stage that ``merges`` is called with
    whole groups of dealt rows, sorted by ``order`` (a column, or ``-column`` for the largest first), and its rows name
    their group in ``parent_id``.
    """

    name: str
    actor: str
    adds: tuple[pa.Field, ...] = ()
    drops: tuple[str, ...] = ()
    params: Settings | Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, ArtifactRef] = field(default_factory=dict)
    version: int = 1
    batch: BatchLimits = BatchLimits()
    resources: Resources = Resources()
    fan_out: bool = False
    seeded: bool = False
    deterministic: bool = True
    metadata: Mapping[str, str] = field(default_factory=dict)  # schema metadata of the output
    measures: tuple[str, ...] = ()
    totals: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    keeps: tuple[str, ...] | None = None
    parts: str = ""
    merges: bool = False
    order: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.merges and self.resources.gpus:
            raise UserError(f"stage {self.name}: a reducer has no GPU; expected a step of its own for what needs one")
        if not isinstance(self.params, Settings):
            try:
                json.dumps(dict(self.params))
            except TypeError as error:
                raise UserError(f"stage {self.name}: parameters must be JSON values, {error}") from None

    def build(self, seed: int) -> BatchFunction:
        """Load the actor with its settings or parameters, artifacts by url, and ``rng`` if it is random.

        The process is prepared first (:func:`shards.process.prepare`).
        """
        make: Callable[..., BatchFunction] = named(self.actor)
        given: dict[str, Any] = {key: ref.url for key, ref in self.artifacts.items()}
        if self.seeded:
            given["rng"] = RecordRandom(seed, self.name)
        actor = make(self.params, **given) if isinstance(self.params, Settings) else make(**self.params, **given)
        prepare()
        return actor

    def identity(self) -> dict[str, Any]:
        """Return the part of this stage that a step's fingerprint covers (law 5), without defaults."""
        found = {
            "version": self.version if self.version != 1 else None,
            "params": self.params.identity() if isinstance(self.params, Settings) else dict(self.params),
            "artifacts": {key: ref.digest for key, ref in self.artifacts.items()},
            "adds": [f"{f.name}: {f.type}" for f in self.adds],
            "drops": list(self.drops),
            "batch": self.batch.identity(),
            "fan_out": self.fan_out,
            "metadata": dict(self.metadata),
            "keeps": self.keeps is not None and ["id", *self.keeps],
            "parts": self.parts,
            "merges": self.merges,
            "order": list(self.order),
        }
        return {"name": self.name} | {key: value for key, value in found.items() if value}

    def input_schema(self, given: pa.Schema) -> pa.Schema:
        """Return the columns to read of an input: all, unless the stage says what it keeps."""
        if self.keeps is None:
            return given
        record = GROUP.name if self.merges else "id"
        wanted = {record, *self.keeps, *self.columns, *(name.removeprefix("-") for name in self.order)}
        return pa.schema([f for f in given if f.name in wanted], given.metadata)

    def output_schema(self, given: pa.Schema) -> pa.Schema:
        """Return the schema of this stage's output for an input schema."""
        order = [name.removeprefix("-") for name in self.order]
        read = [*self.columns, *order]
        missing = [name for name in read if name not in given.names]
        if missing:
            raise UserError(f"stage {self.name} reads {missing}, which its input lacks: {given.names}")
        nested = [name for name in order if pa.types.is_nested(given.field(name).type)]
        if nested:
            raise UserError(f"stage {self.name} sorts by {nested}, which are lists; expected columns of single values")
        for verb, names in (("drops", self.drops), ("keeps", self.keeps or ())):
            missing = [name for name in names if name not in given.names]
            if missing:
                raise UserError(f"stage {self.name} {verb} {missing}, which its input lacks: {given.names}")
        fields = [
            f for f in given if f.name not in self.drops and (self.keeps is None or f.name in ("id", *self.keeps))
        ]
        if self.merges:
            own = [name for name in (*(f.name for f in self.adds), *(self.keeps or ())) if name in MERGED.names[1:]]
            if own:
                raise UserError(
                    f"stage {self.name}: {' and '.join(own)} is what a merge itself writes of a group; expected other "
                    "names of columns"
                )
            fields = [*MERGED, *(f for f in fields if f.name not in MERGED.names)]
        added = {f.name: f for f in self.adds}
        fields = [added.pop(f.name, f) for f in fields]
        if self.fan_out and not any(f.name == "parent_id" for f in fields):
            added.setdefault("parent_id", pa.field("parent_id", pa.string()))
        metadata = {k: v for k, v in (given.metadata or {}).items() if k != b"huggingface"}
        metadata |= {k.encode(): v.encode() for k, v in self.metadata.items()}
        made = pa.schema([*fields, *added.values()], metadata=metadata or None)
        check_totals(f"stage {self.name}", self.totals, made)
        return made


def check_totals(owner: str, totals: Sequence[str], schema: pa.Schema) -> None:
    """Check that all totals are of numeric columns of a schema."""
    for name in totals:
        if not is_numeric(schema, name):
            raise UserError(f"{owner}: no total of {name!r}; expected one of its numeric columns ({schema.names})")


def is_numeric(schema: pa.Schema, name: str) -> bool:
    """Return whether a schema has a column of this name with integers or floating-point numbers."""
    if name not in schema.names:
        return False
    kind = schema.field(name).type
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


class Actor:
    """Base of actors, whose class declares, once, everything that a stage needs to know.

    An actor is constructed with its settings, the urls of its artifacts by name and, if ``seeded``, ``rng``, and loads
    heavy resources then. Called with a batch, it returns the batch's rows, in order, with columns added. To reject a
    record it sets ``reject_reason``; it never removes a row.

    Example:
        >>> class Length(Actor):
        ...     adds = (pa.field("length", pa.int64()),)
        ...
        ...     def __call__(self, batch):
        ...         return batch.append_column("length", pa.array([len(t) for t in batch["text"].to_pylist()]))
        >>> Length(Settings())(pa.table({"text": ["on", "off"]}))["length"].to_pylist()
        [2, 3]
    """

    # Fields of its stage, see :class:`Stage`.
    name: ClassVar[str] = ""  # of the stage; by default that of the class
    version: ClassVar[int] = 1  # raised whenever the same settings give different bytes
    adds: ClassVar[tuple[pa.Field, ...]] = ()
    drops: ClassVar[tuple[str, ...]] = ()
    batch: ClassVar[BatchLimits] = BatchLimits()
    fan_out: ClassVar[bool] = False
    seeded: ClassVar[bool] = False
    deterministic: ClassVar[bool] = True
    measures: ClassVar[tuple[str, ...]] = ()
    totals: ClassVar[tuple[str, ...]] = ()
    columns: ClassVar[tuple[str, ...]] = ()
    keeps: ClassVar[tuple[str, ...] | None] = None
    parts: ClassVar[str] = ""
    merges: ClassVar[bool] = False
    order: ClassVar[tuple[str, ...]] = ()
    # Whether what it rejects is input of the user's that cannot be read, of which a run tells at its end.
    reads_input: ClassVar[bool] = False

    settings: Settings  # a subclass declares its own type, which its constructor and ``stage`` take

    def __init__(self, settings: Settings, **artifacts: Any) -> None:
        self.settings = settings

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the rows of a batch with this actor's columns added."""
        raise TypeError(f"{type(self).__name__} has no __call__: expected one that takes and returns a batch")

    @classmethod
    def settings_type(cls) -> type[Settings]:
        """Return the settings class, from the annotation of ``settings``."""
        for owner in cls.__mro__:
            hint = get_annotations(owner).get("settings")
            if hint is not None:
                # Only this one: other annotations may be imported for type checkers only.
                alone = type(
                    owner.__name__, (), {"__annotations__": {"settings": hint}, "__module__": owner.__module__}
                )
                return get_type_hints(alone)["settings"]
        return Settings

    @classmethod
    def contract(cls, settings: Any) -> Mapping[str, Any]:
        """Return the stage's fields that depend on the settings (``adds``, ``metadata``, ...), by name."""
        return {}

    @classmethod
    def stage(
        cls,
        settings: Any = None,
        *,
        name: str | None = None,
        resources: Resources | None = None,
        deterministic: bool | None = None,
        **artifacts: ArtifactRef | None,
    ) -> Stage:
        """Return the stage of this actor with these settings and artifacts.

        Raises:
            TypeError: the settings are not of the actor's class, or an artifact is not a reference to one.

        Example:
            >>> from gristmill.actors.records import filter_records
            >>> @filter_records
            ... def too_short(text: str, *, least: int = 3) -> str | None:
            ...     return "too short" if len(text) < least else None
            >>> too_short.stage(too_short.Settings(least=4)).params
            Settings(least=4)
        """
        wanted = cls.settings_type()
        kind = wanted.__qualname__.rpartition("<locals>.")[2]
        settings = wanted() if settings is None else settings
        if not isinstance(settings, wanted):
            example = ", ".join(f"{key}=..." for key in settings) if _are_names(settings) else "..."
            raise TypeError(
                f"{cls.__name__}: settings are {settings!r}; expected an instance of {kind}: "
                f"{cls.__name__}.stage({kind}({example}))"
            )
        for key, given in artifacts.items():
            if key in wanted.model_fields:
                raise TypeError(
                    f"{cls.__name__}: {key} is a setting; expected {cls.__name__}.stage({kind}({key}={given!r}))"
                )
            if given is not None and not isinstance(given, ArtifactRef):
                raise TypeError(
                    f"{cls.__name__}: {key}={given!r} is neither a setting nor an artifact; expected one of the "
                    f"settings {sorted(wanted.model_fields)}, in {kind}, or the `ref` of an artifact"
                )
        stated = {key: getattr(cls, key) for key in _STATED} | dict(cls.contract(settings))
        stated["name"] = name or stated["name"] or cls.__name__
        if resources is not None:
            stated["resources"] = resources
        if deterministic is not None:
            stated["deterministic"] = deterministic
        present = {key: ref for key, ref in artifacts.items() if ref is not None}
        return Stage(actor=name_of(cls), params=settings, artifacts=present, **stated)


def _are_names(settings: Any) -> bool:
    return isinstance(settings, Mapping) and all(isinstance(key, str) for key in settings)


_STATED = {f.name for f in fields(Stage)} & set(Actor.__annotations__)
