"""Groups of texts that mean the same, on which a paraphrase model is fitted: files of the user's."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pyarrow as pa

from gristmill.actors.sessions.meanings import MeaningSettings, ParseMeanings
from gristmill.actors.sources.objects import list_objects
from gristmill.pipelines.inputs import Places, list_places, list_source, place_names, refuse_empty, urls_of
from gristmill.pipelines.run import Run
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
    urls = urls_of(settings.places)
    names = place_names(urls)

    def tables() -> Iterator[pa.Table]:
        return list_places(partial(list_objects, url, key, own=()) for url, key in zip(urls, names, strict=True))

    listed = list_source(run, f"listed_{name}", tables, name)
    stage = ParseMeanings.stage(settings.part(MeaningSettings))
    made = run.step(Step(name, (stage,), listed, cut=settings.shard, max_quarantine=0.01))
    refuse_empty(made, name)
    return made
