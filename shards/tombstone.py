"""The tombstone of a result whose data `gristmill clean` has deleted: what it was, and why it is not there.

It is put if absent before the first file is deleted, and from then on the result counts as cleaned, whatever is left of
it: a clean that is killed is continued by the next one, or by a run that needs the result. A set that would come out
the same again keeps its seal beside it, and so its digest: what was made of it is still found.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import TypeAdapter

from gristmill.shards import checked, store
from gristmill.shards.errors import UserError

TOMBSTONE = "cleaned.json"  # in the folder of a result
_KIND = "tombstone"


class Cleaned(UserError):
    """A result is needed whose data `gristmill clean` has deleted. Exit code 2."""


@dataclass(frozen=True)
class Tombstone:
    """What is known of a cleaned result.

    Example:
        >>> Tombstone("student", "made", "d1", "not used by the newest run", 3, 2000, "c10c").said
        'was deleted by `gristmill clean` (not used by the newest run)'
    """

    name: str  # of the step, artifact or training
    kind: Literal["set", "made", "unfinished"]  # with its seal beside it, without, or of no finished result
    digest: str  # of what is cleaned; "" if it was not finished
    why: str
    files: int  # that are deleted
    size: int  # bytes in them
    made_in: str  # the name of the folder
    own: tuple[str, ...] = ()  # files among them whose names do not say that a run wrote them, by path
    used: bool = False  # by the newest finished run, which has all that it needs without it
    at: str = ""  # when it was decided, by the clock of the machine that cleaned
    remaking: bool = False  # its old files are gone, and a run makes it again: what lies there is new

    @property
    def said(self) -> str:
        """What happened to the result, as the end of a sentence."""
        when = f" on {self.at[:10]}" if self.at else ""
        return f"was deleted by `gristmill clean`{when} ({self.why})"

    def encoded(self) -> bytes:
        """Return the bytes of its file."""
        return checked.encode(_KIND, asdict(self))


_SHAPE: TypeAdapter[Tombstone] = TypeAdapter(Tombstone)


def tombstone_url(url: str) -> str:
    """Return the URL of the tombstone of the result at a URL."""
    return store.join(url, TOMBSTONE)


def find_tombstone(url: str) -> Tombstone | None:
    """Return the tombstone of the result at a URL, or ``None`` if it was not cleaned.

    Raises:
        Damaged: it is not as it was written.

    Example:
        >>> put_tombstone("made/cleaned/0", Tombstone("words", "made", "d1", "not used", 1, 10, "0")).at != ""
        True
        >>> find_tombstone("made/cleaned/0").name, find_tombstone("made/cleaned/1")
        ('words', None)
    """
    return checked.read_as(_KIND, tombstone_url(url), _SHAPE)


def dated(tombstone: Tombstone) -> Tombstone:
    """Return a tombstone with the time that it is now."""
    return replace(tombstone, at=datetime.now(UTC).isoformat(" ", "seconds"))


def put_tombstone(url: str, tombstone: Tombstone) -> Tombstone:
    """Commit that a result is cleaned, and return the valid tombstone: this one, or an earlier one."""
    made = dated(tombstone)
    if store.put_if_absent(tombstone_url(url), made.encoded()):
        return made
    return find_tombstone(url) or made


def write_tombstone(url: str, tombstone: Tombstone) -> None:
    """Replace a tombstone; the caller holds the lease of the output."""
    store.write_bytes(tombstone_url(url), tombstone.encoded())


def refuse_cleaned(url: str, expected: str = "") -> None:
    """Check that the result at a URL was not cleaned; ``expected`` is the end of the sentence.

    Raises:
        Cleaned: it was.
    """
    found = find_tombstone(url)
    if found is not None:
        raise Cleaned(f"{url}: {_what(found)} {found.said}; {expected or again(found)}")


def _what(tombstone: Tombstone) -> str:
    return f"the {'set' if tombstone.kind == 'set' else 'result'} {tombstone.name}"


def again(tombstone: Tombstone) -> str:
    """Return how a cleaned result is made again, as a part of a sentence."""
    if tombstone.used:
        return f"a run that needs it makes it again, or `gristmill run CONFIG --again {tombstone.name}` at once"
    return "a run with the settings that it was made with makes it again"


def to_json(tombstone: Tombstone) -> dict[str, Any]:
    """Return what is printed of a tombstone."""
    return {"at": tombstone.at, "why": tombstone.why, "files": tombstone.files, "bytes": tombstone.size}
