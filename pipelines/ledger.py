"""The ledger of an output: the results that belong to the newest finished run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from gristmill.shards import checked, store

LEDGER = "run.json"
_KIND = "ledger"


class Entry(TypedDict):
    """One set, artifact or model of the run."""

    name: str
    kind: str  # source, step, artifact, training
    path: str
    digest: str
    inputs: NotRequired[list[str]]  # digests
    read: NotRequired[bool]  # by the recipe itself, each time it is run: for its report, or to choose by


class _Ledger(TypedDict):
    recipe: str
    settings: str
    processor: NotRequired[str]
    made: list[Entry]


_SHAPE = TypeAdapter(_Ledger)


def read_ledger(out: str) -> dict[str, Any] | None:
    """Return the recipe, the digest of the settings, and the sets, artifacts and models of the newest finished run
    under ``out``; ``None`` if no run was finished.

    Raises:
        Damaged: the file is not as it was written.
    """
    ledger = checked.read_as(_KIND, store.join(out, LEDGER), _SHAPE)
    return None if ledger is None else dict(ledger)


def has_report(ledger: Mapping[str, Any]) -> bool:
    """Return whether a finished run has a report: one that no saved settings belong to is of a command without one
    (``transcribe``, ``rerank``) or of a script."""
    return ledger["settings"] != ""


def write_ledger(out: str, recipe: str, settings: str, processors: str, made: Sequence[Entry]) -> bool:
    """Write the ledger; return whether it changed. ``processors`` are the levels that its results were made at."""
    ledger = {"recipe": recipe, "settings": settings, "processor": processors, "made": list(made)}
    data = checked.encode(_KIND, ledger)
    url = store.join(out, LEDGER)
    if checked.present(url) == data:
        return False
    store.write_bytes(url, data)
    return True
