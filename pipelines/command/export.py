"""Exports a sealed set to the formats of other tools: Hugging Face Parquet, NeMo manifest, Lhotse cuts, WebDataset.

The records are written shard by shard as a step of the engine, whose receipts are stored in ``.gristmill`` below the
destination (readers skip hidden folders; ``gristmill audit DEST/.gristmill`` audits them). The manifest or card is
written last: an export without it is unfinished, and the same command resumes it. What an earlier export wrote is
compared with its digests first, and written again if it is damaged or missing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from gristmill.actors.export import ExportSettings, writer
from gristmill.pipelines.command.export_check import BOOKS, MARK, is_written, move_damaged
from gristmill.pipelines.command.export_manifests import Export, manifests
from gristmill.pipelines.command.launch import carried_out, check_nodes, check_out, make_cluster
from gristmill.pipelines.ledger import read_ledger
from gristmill.pipelines.progress import RunProgress
from gristmill.pipelines.scheduler import Cluster
from gristmill.shards import canonical, store
from gristmill.shards.dataset import SealedSet, find_sealed
from gristmill.shards.engine import run_step, step_url
from gristmill.shards.errors import UserError
from gristmill.shards.finding import find_below
from gristmill.shards.repair import Moved, Mover
from gristmill.shards.step import Step
from gristmill.shards.store import absolute
from gristmill.shards.tombstone import refuse_cleaned


@dataclass(frozen=True)
class Exported:
    """The result of an export."""

    dest: str
    manifest: str  # URL of the file that was written last
    records: int
    left_out: dict[str, int]  # reason or error -> records
    fresh: bool  # whether there was anything to do
    mended: list[Moved]  # what an earlier export wrote and was damaged or missing


def export_set(
    url: str,
    form: str,
    dest: str,
    columns: Sequence[str] | None = None,
    settings: Sequence[str] = (),
    progress: RunProgress | None = None,
) -> Exported:
    """Export the sealed set at ``url`` (a set, or the output of a run and a set's name) to ``dest``, or resume.

    ``settings`` are ``runner=ray|inprocess`` and ``workers=N``.

    Raises:
        UserError: the set, format or column does not exist, or the destination contains something else.
    """
    dest = absolute(dest)
    common = carried_out("export", dest, settings)
    source = find_set(absolute(url))
    written = writer(form, dest, source.schema, columns)
    step = Step(f"export-{form}", (written,), source)
    if not source.records:
        raise UserError(f"{source.url}: the set has no records; there is nothing to export")
    try:
        check_out(dest)
        check_nodes(common)
    except UserError as error:
        raise UserError(str(error).removeprefix("out=")) from None
    _claim(dest, form, source, step)
    assert isinstance(written.params, ExportSettings)
    return _carry_out(step, form, dest, written.params.columns, make_cluster(common), progress)


def _carry_out(
    step: Step, form: str, dest: str, columns: Sequence[str], cluster: Cluster, progress: RunProgress | None
) -> Exported:
    books, progress = store.join(dest, BOOKS), progress or RunProgress()
    url = step_url(books, step, 0)
    mended = move_damaged(dest, url, step.fingerprint(0), progress.say)
    fresh = find_sealed(url) is None
    made = run_step(step, books, cluster, 0, progress)
    export = Export(step.input, made, dest, columns)
    mover = Mover(dest, BOOKS)
    name = ""
    for name, parts in manifests(form, export).items():
        place = store.join(dest, name)
        if is_written(place, parts()):
            continue
        if store.exists(place):
            mover.move(place, "its bytes are not those that were written")
        store.write_chunks(place, parts)
        fresh = True
    store.sweep(dest)
    left_out = {**made.seal["reasons"], **made.seal["errors"]}
    return Exported(dest, store.join(dest, name), made.records, left_out, fresh, mended + mover.moved)


def find_set(url: str) -> SealedSet:
    """Return the sealed set at a URL: the set itself, or the only one of that name in the newest run around it."""
    found = find_below(url)
    sealed = found.sealed
    newest = _of_newest_run(url) if found.cleaned or len(sealed) > 1 else set()
    for place in found.cleaned:
        # Another version of it, which is there, is not what is asked for.
        if not sealed or (place.rstrip("/") in newest and store.last_name(url) == found.names[place]):
            refuse_cleaned(place)
    if not sealed:
        torn = "".join(f"; {place}: {what}" for place, what in found.unreadable.items())
        raise UserError(f"{url}: no sealed set is here or below; expected the folder of a finished step{torn}")
    if len(sealed) > 1:
        sealed = [one for one in sealed if one.url.rstrip("/") in newest] or sealed
    if len(sealed) > 1:
        names = [one.url.removeprefix(url).strip("/") for one in sealed]
        short = [name.rpartition("/")[0] or name for name in names]  # without the fingerprint, if unambiguous
        names = short if len(set(short)) == len(short) else names
        raise UserError(
            f"{url}: contains several sets ({', '.join(names)}); expected one, for example {store.join(url, names[0])}"
        )
    return sealed[0]


def _of_newest_run(url: str) -> set[str]:
    """Return the folders that belong to the newest run whose output is ``url`` or the folder around it."""
    for out in (url, url.rpartition("/")[0]):
        ledger = read_ledger(out) if out else None
        if ledger is not None:
            return {store.join(out, entry["path"]).rstrip("/") for entry in ledger["made"]}
    return set()


def _claim(dest: str, form: str, source: SealedSet, step: Step) -> None:
    """Claim the destination for this export, or raise a :class:`UserError` if it contains something else."""
    mark = {"format": form, "set": source.name, "digest": source.digest, "step": step.fingerprint(0)}
    url = store.join(dest, BOOKS, MARK)
    held = _held(url)
    if held is None:
        names = [name for name in store.list_names(dest) if name != BOOKS]
        begun = store.exists(step_url(store.join(dest, BOOKS), step, 0))  # it is this export, and its mark is damaged
        if names and not begun:
            some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            raise UserError(f"{dest}: contains something else ({some}); expected an unused path, or this export")
        store.remove(url)
        store.put_if_absent(url, canonical.dumps(mark))
        held = _held(url) or mark
    if held != mark:
        found = f"{held['format']} export of the set {held['set']} ({held['digest'][:12]})"
        alike = (held["format"], held["digest"]) == (form, source.digest)
        raise UserError(
            f"{dest}: contains the {found}{' with other columns' if alike else ''}; expected an unused path"
        )


def _held(url: str) -> dict[str, str] | None:
    """Return the mark of an export, or ``None`` if there is none that can be read."""
    try:
        held = json.loads(store.read_if_present(url) or b"")
        return {key: str(held[key]) for key in ("format", "set", "digest", "step")}
    except (ValueError, TypeError, KeyError):
        return None
