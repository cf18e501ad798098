"""``gristmill clean``: deletes what the newest finished run does not use, under the lease of the output."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gristmill.pipelines.config import saved_digest
from gristmill.pipelines.progress import plural, told_size
from gristmill.pipelines.unused import CleaningChoice, Survey, Unused, half_written, read_newest, survey
from gristmill.shards import store
from gristmill.shards.cleaning import clean, remove_entries
from gristmill.shards.entries import remove_empty
from gristmill.shards.errors import UserError
from gristmill.shards.lease import Lease
from gristmill.shards.safe_text import escaped


def clean_output(out: str, choice: CleaningChoice, *, dry_run: bool = False) -> Survey:
    """Print what of an output is not used, delete it unless it is a dry run, and return what was found.

    Raises:
        UserError: there is no finished run, another run is at work, or the choice names what is not there.
        LeaseLost: another run presumed this process dead and took its place; what is left is for the next clean.
    """
    lease = Lease(out)
    lease.refuse_held()  # first: a run at work looks like one that was begun and left
    read_newest(out, choice)
    if dry_run:
        found = survey(out, choice, half_written(out))
        _show(found)
        print(_summary(found, "would be"))
        return found
    parts = half_written(out)
    lease.take_at_once()
    try:
        settings = saved_digest(out)
        found = survey(out, choice, parts)
        _show(found)
        for one in found.unused:
            if saved_digest(out) != settings:
                raise UserError(
                    f"{out}: a run with other settings has begun meanwhile, so nothing more was deleted; run this "
                    "again when it is finished"
                )
            _delete(store.join(out, one.path), one, lease.confirm)
    finally:
        lease.release()
    print(_summary(found, "were" if found.deleted[0] != 1 else "was"))
    return found


def _delete(url: str, one: Unused, check: Callable[[], None]) -> None:
    if one.tombstone is not None:
        clean(url, one.tombstone, check)
    elif one.entries:
        remove_entries(url, one.entries, check)
        remove_empty(url)


def _show(found: Survey) -> None:
    rows = [(_short(one.path), f"{one.files:,}", told_size(one.bytes), one.why) for one in found.unused]
    if rows:
        files, size = found.deleted
        table = [("result", "files", "size", "why"), *rows, ("total", f"{files:,}", told_size(size), "")]
        for line in _aligned(table):
            print(escaped(line))
    for path, why in found.kept:
        print(escaped(f"kept: {_short(path)}: {why}"))
    if found.foreign:
        print(escaped(f"left alone, since no run of Gristmill names files so: {', '.join(sorted(found.foreign))}"))


def _short(path: str) -> str:
    """Return the path of a result with the first characters of its fingerprint, as `gristmill status` shows it."""
    above, _, name = path.rpartition("/")
    fingerprint, dash, number = name.partition("-")
    return f"{above} {fingerprint[:8]}{dash}{number}" if above and len(fingerprint) == 16 else path


def _aligned(table: Sequence[tuple[str, str, str, str]]) -> list[str]:
    first, files, size, _ = (max(len(row[place]) for row in table) for place in range(4))
    return [f"{row[0]:<{first}}  {row[1]:>{files}}  {row[2]:>{size}}  {row[3]}".rstrip() for row in table]


def _summary(found: Survey, verb: str) -> str:
    files, size = found.deleted
    before, after = (f"{plural(count, 'file')}, {told_size(amount)}" for count, amount in (found.before, found.after))
    if not files:
        return f"nothing to delete: {before}"
    marks = f"{plural(found.tombstones[0], 'tombstone')} of {told_size(found.tombstones[1])}"
    beside = f"; beside these {marks}, which say what was deleted" if found.tombstones[0] else ""
    return f"{plural(files, 'file')}, {told_size(size)}, {verb} deleted; before: {before}; after: {after}{beside}"
