"""The check of an earlier export: what it wrote is compared with its digests, and what is damaged is moved aside.

As ``gristmill repair`` does it: the receipts of the shards that a damaged file belongs to are moved with it, and the
seal, so that the export makes just those shards again. All that is moved is kept in the export's books.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Iterable, Iterator

from gristmill.shards import store
from gristmill.shards.ahead import read_ahead
from gristmill.shards.checked import find_faults
from gristmill.shards.dataset import find_made
from gristmill.shards.engine import check_plan, read_plan
from gristmill.shards.errors import Damaged, UserError
from gristmill.shards.lease import Lease
from gristmill.shards.parquet import read_table
from gristmill.shards.receipt import committed_shards, find_receipt, receipt_url
from gristmill.shards.repair import Moved, Mover, repair

BOOKS = ".gristmill"  # below the destination: receipts, and the export's identity
MARK = "export.json"


def move_damaged(dest: str, url: str, fingerprint: str, waiting: Callable[[str], None]) -> list[Moved]:
    """Move aside what is damaged of the export to ``dest`` whose rows are the set at ``url``, and return it.

    Receipts and seals that were moved with damaged files are not returned. To a sound export nothing is done. Every
    file that was written is read. ``waiting`` is called with a sentence if another process is doing this.
    """
    if not any(_faults(dest, url, fingerprint)):
        return []
    books = store.join(dest, BOOKS)
    lease = Lease(books)
    lease.take(waiting)
    try:
        mover = Mover(dest, BOOKS)
        for shard, fault in list(_faults(dest, url, fingerprint)):
            if shard:
                mover.move(fault.url, fault.fault)
                mover.move(receipt_url(url, shard), "a file of the shard is damaged")
        for _ in repair(books, mover):  # the seal, and whatever is wrong with the books themselves
            lease.check()
    finally:
        lease.release()
    own = [moved for moved in mover.moved if not moved.url.startswith(books)]
    return own or mover.moved


def _faults(dest: str, url: str, fingerprint: str) -> Iterator[tuple[str, Damaged]]:
    """Yield what is wrong with the files of committed shards, and (of the shard "") with the books."""
    broken: list[Damaged] = []
    try:
        find_made(url, fingerprint)
        plan = read_plan(url)
        if plan is not None:
            check_plan(url, plan, fingerprint)
    except Damaged as error:
        broken.append(error)

    def look(written: tuple[str, str, str]) -> list[tuple[str, Damaged]]:
        shard, path, sha256 = written
        return [(shard, fault) for fault in find_faults(dest, {path: sha256})]

    for faults in read_ahead(look, _written(url, broken)):
        yield from faults
    yield from (("", fault) for fault in broken)


def _written(url: str, broken: list[Damaged]) -> Iterator[tuple[str, str, str]]:
    """Yield the shard, path and SHA-256 of each file; receipts and rows that cannot be read are put into a list."""
    for shard in committed_shards(url):
        try:
            receipt = find_receipt(url, shard)
            if receipt is not None:  # it was listed
                rows = read_table(url, receipt.data, ["file_path", "file_sha256"]).to_pydict()
                files = dict(zip(rows["file_path"], rows["file_sha256"], strict=True))
                yield from ((shard, path, sha256) for path, sha256 in files.items())
        except Damaged as error:
            broken.append(error)


def refuse_export(dest: str) -> None:
    """Raise a :class:`UserError` for the destination of an export, given to a command for outputs of runs."""
    if store.exists(store.join(dest, BOOKS, MARK)):
        raise UserError(
            f"{dest}: is an export; the same `gristmill export` compares its files and writes again what is damaged, "
            f"and `gristmill audit {shlex.quote(store.join(dest, BOOKS))}` audits its records"
        )


def is_written(url: str, parts: Iterable[bytes]) -> bool:
    """Return whether the file at a URL has exactly these bytes."""
    if not store.exists(url):
        return False
    found, wanted = hashlib.sha256(), hashlib.sha256()
    for digest, pieces in ((found, store.read_pieces(url)), (wanted, parts)):
        for piece in pieces:
            digest.update(piece)
    return found.digest() == wanted.digest()
