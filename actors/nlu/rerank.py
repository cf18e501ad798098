"""The actor that scores lists of hypotheses by the weights of their domains, vectorised over a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.actors.audio import set_column
from gristmill.models.nlu.rerankers import Column, DomainReranker, HypothesisError, Lists, Reranker
from gristmill.shards import canonical, store
from gristmill.shards.artifact import read_file
from gristmill.shards.errors import UserError
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, ArtifactRef, BatchLimits

FILE = "reranker.json"  # in the artifact of one domain
WEIGHTS_BYTES = 64 << 20  # of a file of weights: a value of a context column takes some 100
LOGS = ("domain_logprob", "intent_logprob", "slots_logprob")  # in the order of the re-rankers' FEATURES
_ARTIFACT = "domain:"
_FOLDER = "folder"


class RerankSettings(Settings):
    """Names of the columns that a re-ranker adds."""

    suffix: str = ""
    """Suffix of their names, for several re-rankers on the same lists."""


class Rerank(Actor):
    """Adds the confidence of each hypothesis, in the order of its list, and the index of the best (-1: none).

    Weights come from one artifact per domain (:func:`artifacts_of`) or from a plain ``folder`` of ``<domain>.json``
    (:func:`folder_ref`); without any, scores are unweighted (R0). Only the records with a hypothesis that cannot be
    scored are quarantined.
    """

    name = "rerank"
    batch = BatchLimits(rows=4096)
    settings: RerankSettings

    def __init__(self, settings: RerankSettings, **urls: str) -> None:
        super().__init__(settings)
        read = []
        for key, url in urls.items():
            if key == _FOLDER:
                read += load_folder(url)
            else:
                read.append(read_weights(url, key.removeprefix(_ARTIFACT)))
        self.reranker = Reranker(read) if read else None

    @classmethod
    def contract(cls, settings: RerankSettings) -> dict[str, Any]:
        """Return the added columns."""
        return {"adds": score_fields(settings.suffix)}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``scores`` and ``best``, each with the suffix."""
        lists = lists_of(batch, self.reranker.columns if self.reranker else ())
        scores = (self.reranker or Reranker.unweighted(lists.domains)).score(lists)
        return with_scores(batch, self.settings.suffix, lists, scores.confidence, scores.best)


def score_fields(suffix: str) -> tuple[pa.Field, ...]:
    """Return the columns that a re-ranker adds, named with a suffix."""
    return pa.field(f"scores{suffix}", pa.list_(pa.float32())), pa.field(f"best{suffix}", pa.int32())


def with_scores(batch: pa.Table, suffix: str, lists: Lists, confidence: np.ndarray, best: np.ndarray) -> pa.Table:
    """Return a batch with the columns of :func:`score_fields`.

    ``confidence`` (hypotheses,) float32 and ``best`` (records,) int32 are those of the batch's lists.
    """
    held = pa.ListArray.from_arrays(pa.array(lists.offsets, pa.int32()), pa.array(confidence))
    return set_column(set_column(batch, f"scores{suffix}", held), f"best{suffix}", pa.array(best))


def artifacts_of(weights: Mapping[str, ArtifactRef]) -> dict[str, ArtifactRef]:
    """Return the artifacts of the stage, from the artifacts of weights by domain."""
    return {f"{_ARTIFACT}{domain}": ref for domain, ref in weights.items()}


def folder_ref(folder: str) -> ArtifactRef:
    """Return a plain folder of weights as the stage's ``folder``; its digest is that of the weights.

    Raises:
        UserError: as :func:`load_folder`.
    """
    shas = {made.domain: canonical.sha256(made.to_bytes()) for made in load_folder(folder)}
    return ArtifactRef(folder, canonical.digest(shas))


def file_of(folder: str, domain: str) -> str:
    """Return the URL of a domain's weights in a plain folder."""
    return store.join(folder, f"{quote(domain, safe=' ')}.json")


def read_weights(url: str, domain: str) -> DomainReranker:
    """Read the weights of a domain from the artifact of its training; raises as :func:`load_folder`."""
    return _read(_artifact_file(url), url, domain)


def load_folder(folder: str) -> list[DomainReranker]:
    """Read the weights in a plain folder of ``<domain>.json``.

    Raises:
        UserError: there is none, one is rejected by
            :meth:`gristmill.models.nlu.rerankers.DomainReranker.from_bytes`, or one is of another domain than its
            name says.
    """
    names = sorted(name for name in store.list_names(folder) if name.endswith(".json"))
    if not names:
        raise UserError(f"{folder}: has no re-ranker; expected one <domain>.json per domain")
    urls = {unquote(name.removesuffix(".json")): store.join(folder, name) for name in names}
    return [_read(store.read_limited(url, WEIGHTS_BYTES), url, domain) for domain, url in urls.items()]


def labelled_lists(table: pa.Table, context: Sequence[str], source: str) -> Lists:
    """Return the lists of a table with the errors of their hypotheses, for training or evaluation.

    Raises:
        UserError: as :func:`lists_of`, and where a list of ``source`` cannot be scored: none is left out silently.
    """
    try:
        return lists_of(table, context, labelled=True)
    except HypothesisError as error:
        raise UserError(f"{source}: {error}") from None


def lists_of(table: pa.Table, context: Sequence[str] = (), *, labelled: bool = False) -> Lists:
    """Return the lists of a table, flattened, with the ``context`` columns; ``labelled``: with errors, too.

    Raises:
        HypothesisError: a hypothesis has no domain, or a score that is not a number.
        UserError: a column is missing, or a context column is neither text nor boolean nor numeric.
    """
    for column in ("hypotheses", *context, *(["reference_length"] if labelled else [])):
        if column not in table.column_names:
            raise UserError(f"rerank: the records have no column {column!r}; they have {', '.join(table.column_names)}")
    column = table["hypotheses"].combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    flat = pc.list_flatten(column)
    names = flat.type.names if pa.types.is_struct(flat.type) else []
    missing = [name for name in ("domain", *LOGS, *(("errors", "correct") if labelled else ())) if name not in names]
    if missing:
        raise UserError(f"rerank: the hypotheses have no field {missing[0]!r}; they have {', '.join(names) or 'none'}")
    logs = np.empty((len(LOGS), len(flat)))
    for row, name in zip(logs, LOGS, strict=True):
        row[:] = _numbers(pc.struct_field(flat, name))
    domain = pc.struct_field(flat, "domain").dictionary_encode()
    if domain.null_count:
        raise HypothesisError("a hypothesis has no domain")
    semer = correct = None
    if labelled:
        reference = table["reference_length"].to_numpy()
        semer = _numbers(pc.struct_field(flat, "errors")) / np.repeat(reference, lengths)
        correct = pc.struct_field(flat, "correct").to_numpy(zero_copy_only=False).astype(bool)
    return Lists(
        offsets=offsets,
        domains=tuple(domain.dictionary.to_pylist()),
        domain=domain.indices.to_numpy(zero_copy_only=False),
        logs=logs,
        context={name: _context(table[name].combine_chunks(), name) for name in context},
        semer=semer,
        correct=correct,
    )


def _numbers(column: pa.Array) -> np.ndarray:
    if not pa.types.is_floating(column.type) or column.null_count:
        column = pc.cast(column, pa.float64())  # in which missing values are NaN
    return column.to_numpy(zero_copy_only=False)


def _context(column: pa.Array, name: str) -> Column:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _context(column.dictionary_decode(), name)
    if pa.types.is_boolean(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        codes = pc.cast(column, pa.string()).dictionary_encode()
        places = pc.fill_null(codes.indices, -1).to_numpy(zero_copy_only=False)
        return Column(places.astype(np.int64), tuple(codes.dictionary.to_pylist()))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind):
        return Column(_numbers(column).astype(np.float64))
    raise UserError(f"context column {name!r} is of type {kind}; expected text, booleans or numbers")


def _read(data: bytes, source: str, domain: str) -> DomainReranker:
    made = DomainReranker.from_bytes(data, source)
    if made.domain != domain:
        raise UserError(f"{source}: has the weights of {made.domain!r}; expected those of {domain!r}")
    return made


def _artifact_file(url: str) -> bytes:
    try:
        return read_file(url, FILE)
    except FileNotFoundError:
        raise UserError(f"{url}: has no {FILE}; expected the artifact of a trained re-ranker") from None
