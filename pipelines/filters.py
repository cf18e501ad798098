"""Filters of the user's own in a recipe: named in its file, checked when it is read, applied to its input sets.

corpus:
  filters:
    - {actor: "lab.filters:TooShort", settings: {least: 3}}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import pyarrow as pa
from pydantic import Field, ValidationError, model_validator

from gristmill.actors.records import PerRecord
from gristmill.pipelines.inputs import refuse_empty
from gristmill.pipelines.run import Run
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.names import named
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, Stage
from gristmill.shards.step import Step
from gristmill.shards.wording import sentences


class ActorSettings(Settings):
    """An actor by its name, and its settings."""

    actor: str
    """``module:name``, imported as any module, beside the recipe's file or from the current folder."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """The actor's settings, defaults omitted."""

    @model_validator(mode="after")
    def _checked(self) -> Self:
        try:
            self.stage()
        except UserError as error:
            raise ValueError(str(error)) from None
        except ValidationError as error:
            kind = _class(self.actor).settings_type()
            raise ValueError("; ".join(f"settings.{line}" for line in sentences(error, kind))) from None
        return self

    def applies(self, part: str) -> bool:
        """Return whether a part of the recipe's input is filtered."""
        return True

    def stage(self) -> Stage:
        """Return the actor's stage, named by the actor's ``name`` or else by its full name."""
        kind = _class(self.actor)
        return kind.stage(kind.settings_type().model_validate(self.settings), name=kind.name or self.actor)


class SpeechFilter(ActorSettings):
    """A filter of utterances."""

    parts: tuple[Literal["labelled", "unlabelled", "transcribed", "test"], ...] | None = None
    """Parts of the corpus; by default the labelled ones and, for a filter that does not read the text, the unlabelled
    one, which has none. The test part is filtered only if it is named: filtered, it is another test."""

    def applies(self, part: str) -> bool:
        """Return whether a part is filtered."""
        if self.parts is not None:
            return part in self.parts
        columns = self.stage().columns
        return part in ("labelled", "transcribed") or (part == "unlabelled" and bool(columns) and "text" not in columns)


class DomainFilter(ActorSettings):
    """A filter of the domain's texts, before those of the target language are split into parts."""

    parts: tuple[Literal["target", "source"], ...] = ("target", "source")
    """Language of the texts."""

    def applies(self, part: str) -> bool:
        """Return whether a part is filtered."""
        return part in self.parts


def check_filters(filters: Sequence[ActorSettings], schema: pa.Schema, part: str = "") -> None:
    """Check, before any work, that records of a schema have the columns that filters read.

    Raises:
        UserError: one is missing.
    """
    for one in filters:
        if one.applies(part):
            schema = one.stage().output_schema(schema)


def filtered(run: Run, made: SealedSet, filters: Sequence[ActorSettings], part: str = "") -> SealedSet:
    """Return a set without the records that filters reject, in a step ``<set>_kept``; the set itself without filters.

    ``part`` is the set's part of the recipe's input.
    """
    stages = tuple(one.stage() for one in filters if one.applies(part))
    if not stages:
        return made
    kept = run.step(Step(f"{made.name}_kept", stages, made))
    refuse_empty(kept, kept.name)
    return kept


def _class(name: str) -> type[Actor]:
    found = named(name)
    if not isinstance(found, type) or not issubclass(found, Actor) or found.fan_out or issubclass(found, PerRecord):
        raise UserError(
            f"{name} is not a filter; expected a class such as gristmill.actors.records.Filter, or a function with "
            "@filter_records"
        )
    return found
