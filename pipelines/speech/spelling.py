"""The teacher, and the output units that it shares with the students."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gristmill.actors.speech.align import AlignSettings, alignment
from gristmill.actors.speech.teacher import TeacherSettings, TeacherSource, describe
from gristmill.models.speech.topk import TopKSettings
from gristmill.models.speech.units import UNITS_FILE, Units, UnitSettings, fit_units
from gristmill.pipelines.run import Run
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.stage import Stage


class TeacherChoice(TopKSettings):
    """The teacher, and the precision of its labels."""

    source: Literal["trained", TeacherSource] = "trained"
    """``trained`` here on the annotated part, or a ``model`` of another source."""
    model: str | None = None
    """Folder, URL or hub name of a model of another source."""
    gpus: float | None = Field(None, ge=0)
    """GPUs per labelling worker; null: as ``systems.gpus``."""

    def settings(self, hypothesis: bool) -> TeacherSettings:
        """Return the actor's settings; a teacher trained here is a checkpoint."""
        source: TeacherSource = "checkpoint" if self.source == "trained" else self.source
        return TeacherSettings(source=source, hypothesis=hypothesis, **dict(self.part(TopKSettings)))

    def aligner(self, settings: AlignSettings, trained: Artifact | None) -> Stage:
        """Return the stage that cuts recordings with their texts into utterances, by this teacher."""
        return alignment(settings, self.settings(False).source, self.model if trained is None else trained.ref)


def fitted_units(run: Run, settings: UnitSettings, labelled: SealedSet) -> Artifact:
    """Return the artifact of units fitted to the annotated text."""

    def fit(url: str) -> dict[str, bytes]:
        texts = (text or "" for table in labelled.tables(["text"]) for text in table["text"].to_pylist())
        return _files(fit_units(settings, texts))

    return run.artifact("units", fit, {"version": 3, **settings.identity()}, [labelled])


def outside_units(run: Run, teacher: TeacherChoice) -> Artifact:
    """Return the artifact of the units of an external teacher."""
    assert teacher.source != "trained"
    units = describe(teacher.source, teacher.model).units
    return run.artifact("units", lambda url: _files(units), {"vocabulary": units.digest})


def _files(units: Units) -> dict[str, bytes]:
    return {UNITS_FILE: units.to_json().encode()}
