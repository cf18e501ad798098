"""Where the relative paths of a source begin: not every tool writes them relative to its own file."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Sequence

from gristmill.actors.sources.pointers import resolve
from gristmill.shards.store import exists, is_local

_TRIED = 5  # entries whose audio is looked for
_ABOVE = 4  # folders that are looked in: the source's and those above


def base_of_entries(places: Iterable[str], candidates: Sequence[str]) -> str:
    """Return the first of some folders in which one of the first relative paths leads to a file; else the first."""
    left = _TRIED
    for place in places:
        if "://" in place or place.startswith("/"):
            continue
        found = next((one for one in candidates if exists(resolve(one, place))), None)
        if found is not None:
            return found
        if not (left := left - 1):
            break
    return candidates[0]


def folders_of_recipe(folder: str) -> list[str]:
    """Return a folder, the working folder, and the folders above the first.

    Lhotse and Kaldi keep paths as they were given, so those of a recipe are relative to where it was run.
    """
    above = [folder]
    while len(above) < _ABOVE and posixpath.dirname(above[-1]) not in ("", "/", above[-1]):
        above.append(posixpath.dirname(above[-1]))
    here = [os.getcwd()] if is_local(folder) else []
    return [folder, *here, *above[1:]]
