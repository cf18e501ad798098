"""Inputs of all recipes: URLs and their names, listings, rejection of empty sets."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import count

import pyarrow as pa

from gristmill.actors.sources.speech import corpus_name
from gristmill.actors.sources.unlisted import NothingListed, RejectFile, divided
from gristmill.pipelines.progress import plural
from gristmill.pipelines.run import Run
from gristmill.shards.dataset import SealedSet, digest_of
from gristmill.shards.errors import UserError
from gristmill.shards.plan import expect, make
from gristmill.shards.step import Step

Listing = Callable[[], Iterator[pa.Table]]
Places = str | tuple[str, ...]  # one URL, or several, read in order


def urls_of(places: Places | None) -> tuple[str, ...]:
    """Return the URLs of places, in order; none of ``None``."""
    if places is None:
        return ()
    return (places,) if isinstance(places, str) else places


def list_source(run: Run, name: str, tables: Listing, of: str) -> SealedSet:
    """Seal a listing of source files, which is identified by its rows: a changed file makes it another source.

    The files that cannot be listed (to their end) are told, and are rejects of a set of their own, ``unlisted_<of>``.

    Raises:
        UserError: there is no record.
    """
    unlisted: list[pa.Table] = []

    def records(into: list[pa.Table]) -> Iterator[pa.Table]:
        for kept, files in map(divided, tables()):
            if files.num_rows:
                into.append(files)
            if kept.num_rows:
                yield kept

    # It is read twice, so that it need not be held in memory.
    identity = {"rows": digest_of(records(unlisted))}
    if unlisted:
        _reject_files(run, of, pa.concat_tables(unlisted))
    listed = run.source(name, lambda: records([]), identity)
    make(listed)  # at once, as the files may change
    return listed


def list_places(listings: Iterable[Listing]) -> Iterator[pa.Table]:
    """Yield the tables of the listings of several places; one of which no file can be listed stops no other."""
    for listing in listings:
        try:
            yield from listing()
        except NothingListed as nothing:
            yield nothing.files


def once(say: Callable[[str], None]) -> Callable[[str], None]:
    """Return what says each sentence once: a listing is read twice, and its files may have the same to be said."""
    said: set[str] = set()

    def say_once(sentence: str) -> None:
        if sentence not in said:
            said.add(sentence)
            say(sentence)

    return say_once


def check_listed(listings: Iterable[Listing], setting: str = "") -> None:
    """Check that the places exist, which a setting names, and that a file of one of them can be listed.

    Raises:
        UserError: a place does not exist or has no file of its kind, or none of the files can be listed.
    """
    found, fault = False, None
    for listing in listings:
        try:
            listing()  # raises in the call, before the first row
            found = True
        except NothingListed as nothing:
            fault = fault or nothing
        except UserError as error:
            if not setting:
                raise
            raise UserError(f"{setting}: {error}") from None
    if fault is not None and not found:
        raise fault


def _reject_files(run: Run, of: str, files: pa.Table) -> None:
    listing = run.table(f"unlisted_files_{of}", files)
    made = run.step(Step(f"unlisted_{of}", (RejectFile.stage(),), listing))
    counts = ", ".join(
        f"{number} x {reason}" for reason, number in sorted(Counter(files["reason"].to_pylist()).items())
    )
    run.progress.say(
        f"{of}: {plural(files.num_rows, 'file')} cannot be listed, or not to the end ({counts}), and the others go on; "
        f"see `gristmill inspect {shlex.quote(made.url)} --rejects`, and for what is wrong "
        f"`gristmill inspect {shlex.quote(listing.url)}`. "
        f"The first is {files['message'][0]}"
    )


def refuse_empty(made: SealedSet, name: str) -> None:
    """Raise :class:`UserError` for an empty set, with the counts of its reject reasons and errors; for one that is not
    made yet as soon as it is."""
    expect(made, partial(_refuse_empty, name=name))


def _refuse_empty(made: SealedSet, name: str) -> None:
    if made.records:
        return
    counts = {**made.seal["reasons"], **made.seal["errors"]}
    reasons = ", ".join(f"{count} x {why}" for why, count in counts.items())
    raise UserError(
        f"{name}: no record is left ({reasons or 'it is empty'}); "
        f"see `gristmill inspect {shlex.quote(made.url)} --rejects`"
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
