"""The plan of a run: each result is a handle that knows what it is made of before anything is made (law 8).

A handle stands for a sealed set or an artifact: it is one, and reading any value of it (its records, a file) makes it
and what it needs, and no more. What uses a handle is given the handle itself, not values read from it: then nothing is
made before its turn, and the plan knows who uses what.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, fields, is_dataclass, replace
from operator import attrgetter
from typing import Any, TypeVar, cast

import pyarrow as pa

from gristmill.shards.artifact import MARK, Artifact
from gristmill.shards.dataset import SEAL, SealedSet
from gristmill.shards.stage import ArtifactRef

T = TypeVar("T")
Made = SealedSet | Artifact


@dataclass(eq=False)
class PlanNode:
    """One result of a plan, made or not."""

    number: int  # in the order of declaration
    name: str
    kind: str  # source, step, artifact, training
    inputs: tuple[PlanNode, ...]  # what must be made before
    work: Any  # what makes it, for the run
    schema: Callable[[], pa.Schema] | None = None  # of a set, where it is known before the set is made
    checks: list[Callable[[Any], object]] = field(default_factory=list)
    uses: set[int] = field(default_factory=set)  # numbers of its inputs, and of what it read while it was made
    is_read: bool = False  # by the recipe itself, or by a command afterwards
    after: int = 0  # how many results the recipe had read when it declared this one
    made: Made | None = None

    @property
    def is_ready(self) -> bool:
        """Whether all that it needs is made."""
        return all(node.made is not None for node in self.inputs)


_current: ContextVar[PlanNode | None] = ContextVar("node", default=None)


class Plan:
    """The results of a run in the order of their declaration. ``make`` is called for results that are needed now.

    Example:
        >>> from gristmill.shards.artifact import put_artifact
        >>> def make(nodes):
        ...     for node in nodes:
        ...         plan.finish(node, put_artifact(f"made/plan/{node.name}", {"n.txt": resolved(node.work)}, {}))
        >>> plan = Plan(make)
        >>> one = plan.artifact("one", "artifact", b"1")
        >>> two = plan.artifact("two", "artifact", later(lambda one: one.read("n.txt") + b"2", one))
        >>> [node.name for node in plan.missing()], plan.nodes[1].inputs == (plan.nodes[0],)
        (['one', 'two'], True)
        >>> one.read("n.txt"), [node.name for node in plan.missing()]
        (b'1', ['two'])
    """

    def __init__(self, make: Callable[[list[PlanNode]], None]) -> None:
        self._make = make
        self.nodes: list[PlanNode] = []
        self.read: list[PlanNode] = []  # by the recipe itself, in that order

    def set(self, name: str, kind: str, work: Any, schema: Callable[[], pa.Schema] | None = None) -> SealedSet:
        """Declare a set and return its handle; it is made of what ``work`` holds. ``schema`` returns its columns, where
        they are known before it is made."""
        return PlannedSet(self, self._declare(name, kind, work, schema))

    def artifact(self, name: str, kind: str, work: Any) -> Artifact:
        """Declare an artifact and return its handle; it is made of what ``work`` holds."""
        return PlannedArtifact(self, self._declare(name, kind, work))

    def _declare(self, name: str, kind: str, work: Any, schema: Callable[[], pa.Schema] | None = None) -> PlanNode:
        used = {}
        for plan, node in _planned_in(work):
            if plan is self:
                used[node.number] = node
            else:
                plan.make(node)  # of another run, which this one cannot make
        node = PlanNode(len(self.nodes), name, kind, tuple(used[number] for number in sorted(used)), work, schema)
        node.after = len(self.read)
        node.uses.update(used)
        self.nodes.append(node)
        return node

    def make(self, *nodes: PlanNode) -> None:
        """Make some results, with what they need."""
        if needed := self.needed(*nodes):
            self._make(needed)

    def needed(self, *nodes: PlanNode) -> list[PlanNode]:
        """Return what must be made for some results, themselves included, in the order of declaration."""
        found: dict[int, PlanNode] = {}
        waiting = list(nodes)
        while waiting:
            one = waiting.pop()
            if one.made is None and one.number not in found:
                found[one.number] = one
                waiting += one.inputs
        return [found[number] for number in sorted(found)]

    def count(self) -> int:
        """Return how many results are declared; equal ones are one once they are made."""
        return len({node.number if node.made is None else node.made.url for node in self.nodes.copy()})

    def missing(self) -> list[PlanNode]:
        """Return what is declared and not made, in the order of declaration."""
        return [node for node in self.nodes if node.made is None]

    def made(self, node: PlanNode) -> Made:
        """Return the result of a node that is read by the recipe or by what is being made, making what it needs."""
        user = _current.get()
        if user is None:
            if not node.is_read:
                self.read.append(node)
            node.is_read = True
        else:
            user.uses.add(node.number)
        self.make(node)
        if node.made is None:
            raise RuntimeError(f"{node.name} was not made")
        return node.made

    def used_by(self, node: PlanNode) -> list[PlanNode]:
        """Return what a node uses, also what was only found out while it was made, in the order of declaration."""
        return [self.nodes[number] for number in sorted(node.uses.copy())]  # others may add to it meanwhile

    def without_user(self) -> list[PlanNode]:
        """Return what neither another result nor the recipe itself has used, in the order of declaration."""
        used = {number for node in self.nodes for number in node.uses}
        return [node for node in self.nodes if node.number not in used and not node.is_read]

    def finish(self, node: PlanNode, made: Made) -> None:
        """Keep the result of a node, after its checks."""
        for check in node.checks:
            check(made)
        node.made = made


@contextlib.contextmanager
def using(node: PlanNode) -> Iterator[None]:
    """Enter a context in which what is read is read by a node, not by the recipe.

    Example:
        >>> node = PlanNode(0, "count", "artifact", (), None)
        >>> with using(node):
        ...     _current.get().name
        'count'
    """
    before = _current.set(node)
    try:
        yield
    finally:
        _current.reset(before)


def is_making() -> bool:
    """Return whether a result is being made here, so that what is read is not read by the recipe."""
    return _current.get() is not None


class _Itself:
    """What is equal to itself only: to compare what it stands for would make that."""

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


class _Planned(_Itself):
    """What handles of sets and of artifacts have in common."""

    plan: Plan
    node: PlanNode

    def __init__(self, plan: Plan, node: PlanNode) -> None:
        object.__setattr__(self, "plan", plan)
        object.__setattr__(self, "node", node)

    def __repr__(self) -> str:
        return f"<{self.node.kind} {self.node.name}{'' if self.node.made else ', not made yet'}>"

    def __reduce__(self) -> Any:
        return _itself, (self.plan.made(self.node),)  # another process is given what was made


def _itself(made: Made) -> Made:
    return made


def _reading(name: str) -> property:
    return property(lambda self: getattr(self.plan.made(self.node), name))


class PlannedSet(_Planned, SealedSet):
    """A sealed set that is made when it is needed."""

    name = property(lambda self: self.node.name)

    @property
    def schema(self) -> pa.Schema:
        """The columns of its rows; those of a step are known before it is made."""
        if self.node.made is None and self.node.schema is not None:
            return self.node.schema()
        return cast(SealedSet, self.plan.made(self.node)).schema

    @property
    def ref(self) -> ArtifactRef:
        """The reference by which a stage names it."""
        return _PlannedRef(self, SEAL)


class PlannedArtifact(_Planned, Artifact):
    """An artifact that is made when it is needed."""

    @property
    def ref(self) -> ArtifactRef:
        """The reference by which a stage names it."""
        return _PlannedRef(self, MARK)


class _PlannedRef(_Itself, ArtifactRef):
    """A reference to a set or artifact that is made when it is needed."""

    to: PlannedSet | PlannedArtifact

    def __init__(self, to: PlannedSet | PlannedArtifact, commit: str) -> None:
        object.__setattr__(self, "to", to)
        object.__setattr__(self, "commit", commit)

    url = property(lambda self: self.to.url)
    digest = property(lambda self: self.to.digest)

    def __repr__(self) -> str:
        return f"<reference to {self.to!r}>"

    def __reduce__(self) -> Any:
        return ArtifactRef, (self.url, self.digest, self.commit)


# Everything else that a handle is asked for is asked of what was made.
for _handle, _kind in ((PlannedSet, SealedSet), (PlannedArtifact, Artifact)):
    for _name in {*vars(_kind), *(one.name for one in fields(_kind))}:
        if not _name.startswith("_") and _name not in vars(_handle):
            setattr(_handle, _name, _reading(_name))


@dataclass(frozen=True)
class Later:
    """A value that is computed once what it is computed of is made; see :func:`later`."""

    compute: Callable[..., Any]
    given: tuple[Any, ...]


def later(compute: Callable[..., T], *given: Any) -> T:
    """Return what stands for ``compute(*given)`` until the handles among ``given`` are made.

    Steps, stages, trainings and identities may hold it in the place of the value: a stage that a trained model
    describes, settings with the size of a fitted vocabulary. So the value is an edge of the plan.
    """
    return cast(T, Later(compute, given))


def resolved(value: Any, result: Callable[[PlanNode], Made | None] = attrgetter("made")) -> Any:
    """Return a value with handles replaced by what was made, references to them by references to that, and what was
    to come later by its value; a value without any is returned as it is.

    ``result`` returns what stands for a node: by default what this plan has made of it.
    """
    if isinstance(value, _Planned):
        found = result(value.node)
        if found is None:
            raise RuntimeError(f"{value.node.name} is used before it was made")
        return found
    if isinstance(value, _PlannedRef):
        return resolved(value.to, result).ref
    if isinstance(value, Later):
        return value.compute(*(resolved(one, result) for one in value.given))
    if isinstance(value, SealedSet | Artifact | ArtifactRef):
        return value
    if isinstance(value, Mapping):
        made = {key: resolved(inner, result) for key, inner in value.items()}
        return made if any(made[key] is not inner for key, inner in value.items()) else value
    if isinstance(value, list | tuple):
        items = [resolved(inner, result) for inner in value]
        if all(new is old for new, old in zip(items, value, strict=True)):
            return value
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if is_dataclass(value) and not isinstance(value, type):
        given = {one.name: getattr(value, one.name) for one in fields(value) if one.init}
        changed = {name: new for name, old in given.items() if (new := resolved(old, result)) is not old}
        return replace(value, **changed) if changed else value
    return value


def make(value: Any) -> None:
    """Make the results whose handles a value holds: together, where reading them in turn would make one by one."""
    for plan in {id(plan): plan for plan, _ in _planned_in(value)}.values():
        plan.make(*(node for own, node in _planned_in(value) if own is plan))


def digests(value: Any) -> Any:
    """Return a value with sets and artifacts replaced by their digests, as an identity has them."""
    if isinstance(value, SealedSet | Artifact):
        return value.digest
    if isinstance(value, Mapping):
        return {key: digests(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [digests(inner) for inner in value]
    return value


def nodes_in(value: Any) -> Iterator[PlanNode]:
    """Yield the results whose handles, or references to them, a value holds."""
    return (node for _, node in _planned_in(value))


def _planned_in(value: Any) -> Iterator[tuple[Plan, PlanNode]]:
    if isinstance(value, _Planned):
        yield value.plan, value.node
    elif isinstance(value, _PlannedRef):
        yield value.to.plan, value.to.node
    elif isinstance(value, SealedSet | Artifact | ArtifactRef):
        return
    elif isinstance(value, Later):
        yield from _planned_in(value.given)
    elif isinstance(value, Mapping):
        yield from _planned_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _planned_in(inner)
    elif is_dataclass(value) and not isinstance(value, type):
        for one in fields(value):
            yield from _planned_in(getattr(value, one.name))


def holds_later(values: Any) -> bool:
    """Return whether a value, or one of some values, is to come later."""
    return isinstance(values, Later) or any(isinstance(value, Later) for value in values)


def expect(made: Made, check: Callable[[Any], object]) -> None:
    """Check a set or artifact: as soon as it is made, if it is not yet, and before anything uses it."""
    if isinstance(made, _Planned) and made.node.made is None:
        made.node.checks.append(check)
    else:
        check(made)
