"""What publications have in common: a folder outside of a run's output that is passed on, written once and mended."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from gristmill.pipelines.ledger import LEDGER
from gristmill.shards import checked, disk, store
from gristmill.shards.artifact import MARK, Artifact, Content, get_artifact, put_artifact
from gristmill.shards.errors import Damaged, UserError

CARD = "README.md"
BEST = "best"


@dataclass(frozen=True)
class Published:
    """What was published."""

    url: str
    files: tuple[str, ...]
    """The names of all that belongs to it; that of a folder ends with ``/``."""
    command: str
    """The command that uses it."""
    fresh: bool = True
    """Whether anything was written."""


class Publication:
    """A folder that a model, of the digest ``of``, is published to from the run at ``out``.

    ``names`` are those of what a publication that was interrupted may have left there.

    Raises:
        UserError: the folder contains something else, cannot be written or lies in the output of a run.
    """

    def __init__(self, out: str, dest: str, of: str, names: Collection[str]) -> None:
        if store.is_within(dest, out):
            raise _within(dest, "the run")
        if (other := _output_around(dest)) is not None:
            raise _within(dest, f"another run, {other}")
        if store.is_local(dest):
            disk.try_folder(store.filesystem(dest)[1])  # an export takes a while
        self.url, self._of = dest, of
        self._held = _held(dest, of, {CARD, *names})
        self._described = store.exists(store.join(dest, CARD))

    def find(self, identity: Mapping[str, Any], say: Callable[[str], None]) -> tuple[str, ...] | None:
        """Return the files of an equal publication that is whole; otherwise tell what is damaged of an earlier one."""
        held = self._held
        faults = [] if held is None else checked.find_faults(self.url, held.stored)
        if held is not None and held.identity == self._identity(identity) and not faults and self._described:
            return _files(held)
        for fault in faults:
            say(f"{fault.url}: {fault.fault}; written again")
        return None

    def write(self, files: Mapping[str, Content], identity: Mapping[str, Any], card: str) -> tuple[str, ...]:
        """Write the files, and the card unless it may have been added to; return the names of all files."""
        if self._held is None or self._held.identity != self._identity(identity) or not self._described:
            store.write_bytes(store.join(self.url, CARD), card.encode())
        if self._held is not None:  # of the same model, with or without some file
            store.remove_file(store.join(self.url, MARK))
        return _files(put_artifact(self.url, files, self._identity(identity), plain=True))

    def _identity(self, more: Mapping[str, Any]) -> dict[str, Any]:
        return {"of": self._of, **more}


def _within(dest: str, what: str) -> UserError:
    return UserError(f"{dest}: lies in the output of {what}; expected a folder outside of it, which is passed on")


def _output_around(dest: str) -> str | None:
    """Return the path of the run's output that a folder is or lies in, if there is one."""
    fs, path = store.filesystem(dest)
    inner = PurePosixPath(os.path.realpath(path) if store.is_local(dest) else path)
    for folder in map(str, (inner, *inner.parents)):
        if folder != "." and store.patiently(dest, partial(fs.exists, f"{folder}/{LEDGER}")):
            return folder
    return None


def _files(published: Artifact) -> tuple[str, ...]:
    """Return what lies in the folder, an inner folder as its name and ``/``: who passes the model on file by file needs
    all of it."""
    tops = (f"{folder}/" if slash else folder for folder, slash, _ in (path.partition("/") for path in published.files))
    return CARD, *dict.fromkeys(tops), MARK


def _held(dest: str, of: str, begun: Collection[str]) -> Artifact | None:
    """Return what was published in a folder earlier; raise a :class:`UserError` if it is not this model."""
    try:
        held = get_artifact(dest)
    except Damaged as error:
        raise UserError(
            f"{error.url}: {error.fault}; expected an unused path, or this model as it was written"
        ) from None
    if held is not None and held.identity.get("of") == of:
        return held
    names = store.list_names(dest)
    if held is not None or not set(names) <= set(begun):
        some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        raise UserError(f"{dest}: contains something else ({some}); expected an unused path, or this model")
    return None
