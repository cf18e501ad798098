"""Whose words the systems write: the teacher, and the units of its and the students' output."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field

from gristmill.models.speech.units import characters, sentencepiece
from gristmill.pipelines.run import Run
from gristmill.shards.dataset import SealedSet
from gristmill.shards.settings import Settings


class UnitConfig(Settings):
    """What the recogniser writes: characters of the annotated text, or ``size`` SentencePiece units."""

    kind: Literal["characters", "sentencepiece"] = "characters"
    size: int = Field(256, ge=8)


class TeacherConfig(Settings):
    """Who labels: ``trained`` here on the annotated part, or a ``model`` of another source."""

    source: Literal["trained", "checkpoint", "huggingface", "hama"] = "trained"
    model: str | None = None
    k: int = Field(40, ge=1, le=40)  # kept in the store, so that the sweep needs no second labelling
    step: float = Field(0.0, ge=0)  # nats: the grid on which log-probabilities are stored; 0: as float16
    gpus: float | None = Field(None, ge=0)  # of each worker that labels; null: as systems.gpus


def fitted_units(run: Run, config: UnitConfig, labelled: SealedSet) -> dict[str, Any]:
    """Return units fitted to the annotated text, as :meth:`gristmill.models.speech.units.Units.to_json` writes them."""

    def fit() -> dict[str, bytes]:
        texts = (text or "" for table in labelled.tables(["text"]) for text in table["text"].to_pylist())
        made = characters(texts) if config.kind == "characters" else sentencepiece(texts, config.size)
        return {"units.json": made.to_json().encode()}

    identity = {"version": 2, **config.model_dump()}
    return json.loads(run.artifact("units", fit, identity, [labelled.digest]).read("units.json"))


def outside_units(config: TeacherConfig) -> dict[str, Any]:
    """Return the units of a teacher that is not trained here."""
    from gristmill.actors.speech.teacher import describe

    return json.loads(describe(config.source, config.model).units.to_json())
