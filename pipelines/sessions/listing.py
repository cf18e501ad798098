"""The listing of objects at a user's places, as a source of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from gristmill.actors.sources.objects import Required, list_objects
from gristmill.pipelines.inputs import Places, list_places, list_source, place_names, urls_of
from gristmill.pipelines.run import Run
from gristmill.shards.dataset import SealedSet


def listed_objects(
    run: Run,
    name: str,
    places: Places | None,
    of: str,
    *,
    required: Required | None = None,
    own: Sequence[str] = ("id",),
    by_folder: bool = False,
) -> SealedSet:
    """Return the listing of the objects at ``places``.

    ``of`` says in sentences what they are; what follows is as for
    :func:`gristmill.actors.sources.objects.list_objects`.
    """
    urls = urls_of(places)

    def tables() -> Iterator[pa.Table]:
        pairs = zip(urls, place_names(urls), strict=True)
        how: dict[str, Any] = {"required": required, "own": own, "by_folder": by_folder}
        return list_places(partial(list_objects, url, key, **how) for url, key in pairs)

    return list_source(run, name, tables, of)
