"""Groups of texts that mean the same, on which a paraphrase model is fitted: files of the user's."""

from __future__ import annotations

from gristmill.actors.sessions.meanings import MeaningSettings, ParseMeanings
from gristmill.pipelines.inputs import Places, refuse_empty
from gristmill.pipelines.run import Run
from gristmill.pipelines.sessions.listing import listed_objects
from gristmill.shards.dataset import SealedSet
from gristmill.shards.index import Cut
from gristmill.shards.step import Step


class MeaningFiles(MeaningSettings):
    """Files of texts that mean the same."""

    places: Places
    """The URL of JSONL, TSV or Parquet, or several: sets of wordings (``wordings``), or pairs of texts."""
    shard: Cut = Cut(rows=1000)


def meaning_groups(run: Run, settings: MeaningFiles, name: str = "meanings") -> SealedSet:
    """Return the texts of files with their ``meaning``: what the paraphrase model is fitted on."""
    listed = listed_objects(run, f"listed_{name}", settings.places, name, own=())
    stage = ParseMeanings.stage(settings.part(MeaningSettings))
    made = run.step(Step(name, (stage,), listed, cut=settings.shard, max_quarantine=0.01))
    refuse_empty(made, name)
    return made
