"""The commands ``rerank`` and ``swap``: re-rankers score lists, and are replaced if held-out lists allow it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.actors.nlu.rerank import WEIGHTS_BYTES, Rerank, file_of, folder_ref, labelled_lists, load_folder
from gristmill.actors.sources.lists import EXPECTED, PROBLEM, ListFile, RejectListed, is_file
from gristmill.models.nlu.reranker_fit import Gate, gate
from gristmill.models.nlu.rerankers import DomainReranker
from gristmill.pipelines.command.export import find_set
from gristmill.pipelines.command.launch import carried_out, check_nodes, check_out, make_cluster
from gristmill.pipelines.command.leasing import leased
from gristmill.pipelines.command.occupied import Maker, refuse_occupied
from gristmill.pipelines.progress import RunProgress
from gristmill.pipelines.run import Run
from gristmill.shards import store
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.step import Step
from gristmill.shards.store import absolute


def rerank_lists(
    lists: str, weights: str, out: str, settings: Sequence[str] = (), progress: RunProgress | None = None
) -> tuple[SealedSet, bool]:
    """Score lists of hypotheses with the weights in a folder, adding ``scores`` and ``best`` (-1: no hypothesis).

    ``settings`` are ``runner=ray|inprocess`` and ``workers=N``. Returns the set, and whether anything was done.

    Raises:
        UserError: the lists or the weights are missing, a list needs a domain or a column that does not exist, or the
            output holds other things.
    """
    out = absolute(out)
    stage = Rerank.stage(folder=folder_ref(absolute(weights)))  # checked before any list is read
    common = carried_out("rerank", out, settings)
    check_out(out)
    refuse_occupied(out, Maker("rerank", command=True))
    run = Run(out, make_cluster(common), progress=progress or RunProgress())
    with leased(run, partial(check_nodes, common)):
        # A list that cannot be scored costs only itself: no recipe's results depend on the number of them.
        source = _source(run, absolute(lists))
        rejecting = (RejectListed.stage(),) if PROBLEM.name in source.schema.names else ()
        ranked = run.step(Step("ranked", (*rejecting, stage), source, max_quarantine=1.0))
        fresh = any(not trace.kept for trace in run.trace)
        run.write_ledger("rerank", "")
    return ranked, fresh


def swap(new: str, weights: str, held_out: str) -> Gate:
    """Put a domain's new weights into a folder, unless their log loss on its held-out hypotheses is higher.

    Without weights in the folder, a domain's new weights are compared with R0.

    Raises:
        UserError: the new weights are worse, a path does not exist, or a held-out list cannot be scored.
    """
    try:
        data = store.read_limited(absolute(new), WEIGHTS_BYTES)
    except FileNotFoundError:
        raise UserError(f"{new}: there are no weights; expected the <domain>.json of a re-ranker") from None
    made = DomainReranker.from_bytes(data, new)
    folder = absolute(weights)
    old = {one.domain: one for one in load_folder(folder)}.get(made.domain, DomainReranker.unweighted(made.domain))
    if made.to_bytes() == old.to_bytes():
        raise UserError(f"{new}: these weights are in use already; expected others")
    sealed = find_set(absolute(held_out))
    columns = [spec.name for spec in (*old.context, *made.context)]
    wanted = ["hypotheses", "reference_length", *dict.fromkeys(columns)]
    for name in wanted:
        if name not in sealed.schema.names:
            raise UserError(f"{sealed.url}: the lists have no column {name!r}; they have {sealed.schema.names}")
    lists = labelled_lists(pa.concat_tables(_held_out(sealed, wanted)), columns, sealed.url)
    compared = gate(old, made, lists)
    store.write_bytes(file_of(folder, made.domain), data)
    return compared


def _held_out(sealed: SealedSet, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the lists of the test part, or all lists if there are no parts."""
    fold = ["fold"] if "fold" in sealed.schema.names else []
    for table in sealed.tables([*columns, *fold]):
        yield (table.filter(pc.equal(table["fold"], -1)) if fold else table).select(columns)


def _source(run: Run, url: str) -> SealedSet:
    if not is_file(url):
        return find_set(url)
    if not store.exists(url):
        raise UserError(f"{url}: there is no such file; expected a sealed set, or {EXPECTED}")
    whole = hashlib.sha256()
    for piece in store.read_pieces(url):
        whole.update(piece)
    file = ListFile(url)
    identity = {"sha256": whole.hexdigest()} | ({"version": 2} if file.problems else {})  # 1: the file was refused
    return run.source("lists", file.tables, identity)
