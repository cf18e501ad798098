"""The check that an output has a folder of its own, so that a run's files do not end up among others."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass

from gristmill.pipelines.config import SAVED, read_saved, recipes
from gristmill.pipelines.ledger import LEDGER, has_report, read_ledger
from gristmill.shards import checked, store
from gristmill.shards.artifact import MARK
from gristmill.shards.dataset import SEAL
from gristmill.shards.disk import PART
from gristmill.shards.engine import PLAN as STEP
from gristmill.shards.errors import Damaged, UserError
from gristmill.shards.job import CHECKPOINTS
from gristmill.shards.lease import FOLDER
from gristmill.shards.receipt import SHARD_FILES
from gristmill.shards.repair import is_fingerprint

PLAN = "plan.json"  # below OUT: the latest estimate
COMMANDS = ("rerank", "transcribe")  # that write an output themselves; their ledgers name no settings
_NO_MATTER = {".DS_Store", "Thumbs.db", "desktop.ini", "lost+found", ".gitkeep", ".gitignore", ".keep", FOLDER}
_NAMED, _LOOKED_INTO = 3, 40  # of many
# A run that was killed before its first result left files that are named by their digests.
_DIGESTED = re.compile(r"[^.].*-[0-9a-f]{16}([0-9a-f]{48})?(\.\w+)*")


@dataclass(frozen=True)
class Maker:
    """Who makes an output: a recipe, by its name as settings have it, or a command without one."""

    name: str
    command: bool = False

    def __str__(self) -> str:
        return f"`gristmill {self.name}`" if self.command else f"the recipe {self.name}"

    def is_same(self, other: Maker) -> bool:
        """Return whether two makers are one. A user's module may be named from its folder, or from one further up."""
        short, long = sorted((recipes().get(one.name, one.name) for one in (self, other)), key=len)
        own = long not in recipes().values()
        return self.command == other.command and (short == long or (own and long.endswith(f".{short}")))


def refuse_occupied(out: str, maker: Maker) -> None:
    """Check that an output is new, is an empty folder, or holds what its ``maker`` (or a script) made earlier.

    An estimate of ``gristmill plan`` is nobody's result.

    Raises:
        UserError: it holds other things, or the results of another recipe or command.
    """
    names = [name for name in store.list_names(out) if name not in _NO_MATTER and not name.startswith(PART)]
    if any(_is_ours(store.join(out, name)) for name in (SAVED, LEDGER, PLAN) if name in names):
        found = _makers(out)
        if found and not any(map(maker.is_same, found)):
            raise UserError(
                f"out={out}: holds results of {found[0]}, and those of {maker} were to be written there; expected "
                f"{found[0]}, or another out"
            )
        return
    if not names:
        return
    inner = (store.join(out, name) for name in names[:_LOOKED_INTO] if "." not in name)
    if any(_is_result(store.join(url, one)) for url in inner for one in _folder(url) if is_fingerprint(one)):
        return
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    raise UserError(
        f"out={out}: holds other things ({', '.join(names[:_NAMED])}{more}); expected a new or an empty folder, or the "
        "output of an earlier run"
    )


def _makers(out: str) -> list[Maker]:
    """Return who made an output, as its saved settings and its ledger say; what cannot be read says nothing."""
    found = []
    with contextlib.suppress(Damaged):
        if (saved := read_saved(out)) is not None:
            found.append(Maker(str(saved.get("recipe"))))
    with contextlib.suppress(Damaged):
        if (ledger := read_ledger(out)) is not None:
            name = ledger["recipe"]
            found.append(Maker(name, command=name in COMMANDS and not has_report(ledger)))
    return found


def _is_ours(url: str) -> bool:
    """Return whether a file is one of ours, whole or damaged: others have files of such names too."""
    if store.is_local(url) and not os.path.isfile(store.filesystem(url)[1]):
        return False
    return checked.is_encoded(store.read_if_present(url) or b"")


def _is_result(url: str) -> bool:
    """Return whether a folder is that of a set, artifact or training, finished or begun: caches name theirs alike."""
    names = _folder(url)
    if any(_is_ours(store.join(url, name)) for name in (SEAL, MARK, STEP) if name in names):
        return True
    held = (_folder(store.join(url, name)) for name in (CHECKPOINTS, *SHARD_FILES) if name in names)
    return any(
        _DIGESTED.fullmatch(name) is not None or name.startswith(PART) for some in (names, *held) for name in some
    )


def _folder(url: str) -> list[str]:
    if store.is_local(url) and not os.path.isdir(store.filesystem(url)[1]):
        return []
    return store.list_names(url)
