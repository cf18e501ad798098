"""NeMo's tarred sets: a manifest whose lines have a ``shard_id``, and the tars with their audio beside it.

Sharded manifests have a folder of their own, beside the tars.
"""

from __future__ import annotations

import functools
import posixpath
import re
from collections.abc import Mapping
from typing import Any

from gristmill.actors.sources.pointers import MALFORMED, version_of
from gristmill.actors.sources.tar import Member, members_of
from gristmill.actors.sources.unlisted import MISSING, FileFault
from gristmill.shards.errors import RejectRecord
from gristmill.shards.store import bare, list_names
from gristmill.shards.walking import walk

KEY = "shard_id"
_NUMBERED = re.compile(r"(?:^|[_.-])(\d+)\.tar$")


class Tarred:
    """The tars beside a manifest, or beside its folder.

    The members of the last one are held: lines come in the order of the shards.
    """

    def __init__(self, manifest: str) -> None:
        self._folder = posixpath.dirname(bare(manifest))
        self._last: tuple[int, dict[str, Member], str] | None = None

    @functools.cached_property
    def _tars(self) -> dict[int, str]:
        """The tars by number; a folder is looked into for the first line that has one: not all can be."""
        for folder in (self._folder, posixpath.dirname(self._folder)):
            numbered = ((_NUMBERED.search(name), name) for name in list_names(folder))
            tars = {int(found[1]): f"{folder}/{name}" for found, name in numbered if found}
            if tars:
                return tars
        return {}

    @property
    def numbers(self) -> list[int]:
        """The numbers of the tars."""
        return sorted(self._tars)

    def place(self, values: Mapping[str, Any], path: str) -> dict[str, Any]:
        """Return where the audio of a line lies, as columns of a pointer; its member has the name of its path.

        Raises:
            RejectRecord: there is no such tar, or it has no such member, or it is damaged.
        """
        number = values[KEY]
        if not isinstance(number, int) or isinstance(number, bool):
            raise RejectRecord(MALFORMED)
        if number not in self._tars:
            raise RejectRecord(MISSING)
        url = self._tars[number]
        if self._last is None or self._last[0] != number:
            try:
                named = {posixpath.basename(one.name): one for one in members_of(url)}
            except FileFault as fault:
                raise RejectRecord(fault.reason) from None
            self._last = number, named, version_of(*walk(url))
        _, named, version = self._last
        found = named.get(posixpath.basename(path))
        if found is None:
            raise RejectRecord(MISSING)
        where = {"member": found.name, "offset": found.offset, "size": found.size, "version": version}
        return {"kind": "member", "url": url, **where}
