"""The check that an output has a folder of its own, so that a run's files do not end up among others."""

from __future__ import annotations

import os

from gristmill.pipelines.config import SAVED
from gristmill.pipelines.run import LEDGER
from gristmill.shards import checked, store
from gristmill.shards.disk import PART
from gristmill.shards.errors import UserError
from gristmill.shards.lease import FOLDER
from gristmill.shards.repair import is_fingerprint

PLAN = "plan.json"  # below OUT: the latest estimate
_NO_MATTER = {".DS_Store", "Thumbs.db", "desktop.ini", "lost+found", ".gitkeep", ".gitignore", ".keep", FOLDER}
_NAMED, _LOOKED_INTO = 3, 40  # of many


def refuse_occupied(out: str) -> None:
    """Check that an output is new, is an empty folder, or holds what an earlier run (or script) made.

    Raises:
        UserError: it holds other things.
    """
    names = [name for name in store.list_names(out) if name not in _NO_MATTER and not name.startswith(PART)]
    if not names or any(_is_ours(out, name) for name in (SAVED, LEDGER, PLAN) if name in names):
        return
    inner = (name for name in names[:_LOOKED_INTO] if "." not in name)
    if any(map(is_fingerprint, (one for name in inner for one in _folders(store.join(out, name))))):
        return
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    raise UserError(
        f"out={out}: holds other things ({', '.join(names[:_NAMED])}{more}); expected a new or an empty folder, or the "
        "output of an earlier run"
    )


def _is_ours(out: str, name: str) -> bool:
    """Return whether a file is one of ours, whole or damaged: others have files of such names too."""
    url = store.join(out, name)
    if store.is_local(url) and not os.path.isfile(store.filesystem(url)[1]):
        return False
    return checked.is_encoded(store.read_if_present(url) or b"")


def _folders(url: str) -> list[str]:
    if store.is_local(url) and not os.path.isdir(store.filesystem(url)[1]):
        return []
    return store.list_names(url)
