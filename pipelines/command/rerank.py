"""The commands ``rerank`` and ``swap``: re-rankers score lists, and are replaced if held-out lists allow it."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.actors.requests.rerank import WEIGHTS_BYTES, Rerank, file_of, folder_ref, labelled_lists, load_folder
from gristmill.actors.sources.columns import Parquet
from gristmill.actors.sources.reading import opened
from gristmill.models.requests.reranker_fit import Gate, gate
from gristmill.models.requests.rerankers import DomainReranker
from gristmill.pipelines.command.export import find_set
from gristmill.pipelines.command.launch import carried_out, check_nodes, check_out, make_cluster
from gristmill.pipelines.command.leasing import leased
from gristmill.pipelines.progress import RunProgress
from gristmill.pipelines.run import Run
from gristmill.shards import store
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.schema import HYPOTHESES_FIELDS, ID
from gristmill.shards.step import Step
from gristmill.shards.store import absolute

ROWS = 2000  # of a shard
BATCH_BYTES = 32 << 20  # of a shard of long records
LINE_BYTES = 8 << 20  # of a list as JSON
DEPTH = 64  # of brackets in it: Arrow's reader ends the process at some ten thousand
EXPECTED = "a sealed set, or a .parquet or .jsonl file, of records with `id` and `hypotheses`"


def rerank_lists(
    lists: str, weights: str, out: str, settings: Sequence[str] = (), progress: RunProgress | None = None
) -> tuple[SealedSet, bool]:
    """Score lists of hypotheses with the weights in a folder, adding ``scores`` and ``best`` (-1: no hypothesis).

    ``settings`` are ``runner=ray|inprocess`` and ``workers=N``. Returns the set, and whether anything was done.

    Raises:
        UserError: the lists or the weights are missing, or a list needs a domain or a column that does not exist.
    """
    out = absolute(out)
    stage = Rerank.stage(folder=folder_ref(absolute(weights)))  # checked before any list is read
    common = carried_out("rerank", out, settings)
    check_out(out)
    run = Run(out, make_cluster(common), progress=progress or RunProgress())
    with leased(run, partial(check_nodes, common)):
        # A list that cannot be scored costs only itself: no recipe's results depend on the number of them.
        ranked = run.step(Step("ranked", (stage,), _source(run, absolute(lists)), max_quarantine=1.0))
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
    form = next((form for form in READERS if url.endswith(form)), None)
    if form is None:
        return find_set(url)
    if not store.exists(url):
        raise UserError(f"{url}: there is no such file; expected {EXPECTED}")
    whole = hashlib.sha256()
    for piece in store.read_pieces(url):
        whole.update(piece)
    return run.source("lists", lambda: READERS[form](url), {"sha256": whole.hexdigest()})


def _parquet(url: str) -> Iterator[pa.Table]:
    with opened(url) as file:
        source = Parquet(file)
        for group in range(len(source.rows)):
            for batch in source.batches(group, source.schema.names):
                yield _checked(pa.Table.from_batches([batch]), url)


def _jsonl(url: str) -> Iterator[pa.Table]:
    """Yield the lists of lines in pieces; their columns are those of all lines, which are read twice for it."""
    import pyarrow.json as pj

    def tables(schema: pa.Schema) -> Iterator[pa.Table]:
        for lines in _pieces(url):
            block = max(1 << 20, 2 * max(map(len, lines)))
            reading = pj.ReadOptions(use_threads=False, block_size=block)
            yield pj.read_json(io.BytesIO(b"".join(lines)), reading, pj.ParseOptions(explicit_schema=schema))

    known = pa.schema([ID, *HYPOTHESES_FIELDS])
    try:
        whole = known
        for table in tables(known):
            whole = _unified(whole, table.schema)
        count = 0
        for table in tables(whole):
            count += table.num_rows
            yield _checked(table.select(whole.names), url)
    except pa.ArrowException as error:
        raise UserError(
            f"{url}: cannot be read as JSON lines ({str(error).splitlines()[0]}); expected {EXPECTED}"
        ) from None
    if not count:
        raise UserError(f"{url}: holds no list; expected {EXPECTED}")


def _unified(one: pa.Schema, other: pa.Schema) -> pa.Schema:
    """Return the columns of both, as the reader would have found them in one piece."""
    for field in one:
        at = other.get_field_index(field.name)
        kinds = {field.type, other.field(at).type} if at >= 0 else set()
        if pa.string() in kinds and any(pa.types.is_timestamp(kind) for kind in kinds):  # only some look like times
            one = one.set(one.get_field_index(field.name), field.with_type(pa.string()))
            other = other.set(at, field.with_type(pa.string()))
    return pa.unify_schemas([one, other], promote_options="permissive")


def _pieces(url: str) -> Iterator[list[bytes]]:
    """Yield the lines of a file, as many as make a shard and no more than make a batch."""
    lines: list[bytes] = []
    size = 0
    for number, line in enumerate(_lines(url), 1):
        if len(line) > LINE_BYTES:
            raise UserError(f"{url}, line {number}: longer than {LINE_BYTES} bytes; expected one list of hypotheses")
        if line.count(b"[") + line.count(b"{") > DEPTH and _is_deep(line):
            raise UserError(f"{url}, line {number}: brackets {DEPTH} deep and deeper; expected one list of hypotheses")
        if lines and (len(lines) == ROWS or size + len(line) > BATCH_BYTES):
            yield lines
            lines, size = [], 0
        if line.strip():
            lines.append(line.rstrip(b"\r\n") + b"\n")
            size += len(line)
    if lines:
        yield lines


def _is_deep(line: bytes) -> bool:
    """Return whether the brackets of a line of JSON go deeper than ``DEPTH``."""
    depth = 0
    for found in re.finditer(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', line):
        depth += (found[0] in b"[{") - (found[0] in b"]}")
        if depth > DEPTH:
            return True
    return False


def _lines(url: str) -> Iterator[bytes]:
    """Yield the lines of a file; of a longer one than ``LINE_BYTES``, a part that is longer."""
    rest = b""
    for piece in store.read_pieces(url):
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole
        if len(rest) > LINE_BYTES:
            yield rest
    yield rest


def _checked(table: pa.Table, url: str) -> pa.Table:
    missing = [name for name in ("id", "hypotheses") if name not in table.column_names]
    if missing or table["id"].null_count:
        raise UserError(f"{url}: a record has no {missing[0] if missing else 'id'}; expected {EXPECTED}")
    return table.combine_chunks()


READERS = {".parquet": _parquet, ".jsonl": _jsonl}
