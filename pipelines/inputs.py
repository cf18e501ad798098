"""Inputs of all recipes: URLs and their names, rejection of empty sets."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from gristmill.actors.sources.speech import corpus_name
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError

Places = str | tuple[str, ...]  # one URL, or several, read in order


def refuse_empty(made: SealedSet, name: str) -> None:
    """Raise :class:`UserError` for an empty set, with the counts of its reject reasons and errors."""
    if made.records:
        return
    counts = {**made.seal["reasons"], **made.seal["errors"]}
    reasons = ", ".join(f"{count} x {why}" for why, count in counts.items())
    raise UserError(
        f"{name}: no record is left ({reasons or 'it is empty'}); see `gristmill inspect {made.url} --rejects`"
    )


def place_names(urls: Sequence[str]) -> list[str]:
    """Return a name for each URL, used in ids; equal ones (/a/train, /b/train) are numbered in the order given."""
    own = [corpus_name(url) for url in urls]
    names: list[str] = []
    for name in own:
        free = name
        if own.count(name) > 1:
            taken = {*own, *names}
            free = next(f"{name}-{n}" for n in count(1) if f"{name}-{n}" not in taken)
        names.append(free)
    return names
