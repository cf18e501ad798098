"""The listing of objects at a user's places, as a source of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import pyarrow as pa

from gristmill.actors.sources.objects import list_objects
from gristmill.pipelines.inputs import Places, list_places, list_source, place_names, urls_of
from gristmill.pipelines.run import Run
from gristmill.shards.dataset import SealedSet


def listed_objects(
    run: Run,
    name: str,
    places: Places | None,
    of: str,
    *,
    required: Mapping[str, str] | None = None,
    own: Sequence[str] = ("id",),
) -> SealedSet:
    """Return the listing of the objects at ``places``; ``required`` and ``own`` are those of
    :func:`gristmill.actors.sources.objects.list_objects`, and ``of`` says of what they are in sentences."""
    urls = urls_of(places)

    def tables() -> Iterator[pa.Table]:
        pairs = zip(urls, place_names(urls), strict=True)
        return list_places(partial(list_objects, url, key, required=required, own=own) for url, key in pairs)

    return list_source(run, name, tables, of)
