"""Requests read by the domain models of a run, and ranked by its re-rankers; or by its recognisers of new functions.

    from gristmill.pipelines.requests.annotate import RequestAnnotator
    for one in RequestAnnotator("out/rerank").annotate("wake me at nine"):
        print(one.domain, one.intent, one.slots, one.confidence)

Over records the same is done by the actors ``Hypotheses`` and ``Rerank``, and ``Detect``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from gristmill.actors.nlu.annotation import read_text
from gristmill.actors.nlu.folds import TEST
from gristmill.models.nlu.domain import Slot
from gristmill.pipelines.finished import Finished, open_finished
from gristmill.pipelines.inline import in_batches, lost, one_by_one
from gristmill.pipelines.requests.context import type_of, whole
from gristmill.pipelines.requests.function_models import function_models, function_reader
from gristmill.pipelines.requests.published import published_models
from gristmill.pipelines.requests.ranked_models import NO_TEXT, ranked_models, ranked_reader
from gristmill.pipelines.requests.reading import RequestModels, RequestReader
from gristmill.shards import processor, store
from gristmill.shards.errors import RejectRecord
from gristmill.shards.schema import SLOT

Request = str | Mapping[str, Any] | None  # a text, or one with its context

_MARKS = " .?!…。？！।؟"  # at the end of a request that is written; those that models are trained on have none


@dataclass(frozen=True)
class AnnotatedRequest:
    """A request with its best reading."""

    text: str
    domain: str = ""
    intent: str = ""
    slots: tuple[Slot, ...] = ()
    confidence: float | None = None
    """The re-ranker's, or the recogniser's that the request is of its function; 0 to 1."""
    readings: tuple[dict[str, Any], ...] = ()
    """All of them, best first: domain, intent, slots and confidence."""
    problem: str | None = None
    """Why there is no reading; ``None`` also where new functions all refuse the request."""


class RequestAnnotator:
    """Reads requests with the domain models of a run, ranked by the re-rankers of its best system or of ``system``.

    Its models are those of all training data, of the first seed. Of a run of the expansion they are the recognisers of
    its new functions, of which each accepts requests for itself. ``out`` may be a published folder of such models.

    Raises:
        UserError: there is no such run or system, or this machine does not offer the instruction set.
        GristmillError: the published folder is damaged.
        Damaged: a model is not as it was trained.
    """

    def __init__(self, out: store.Place, *, system: str | None = None) -> None:
        processor.check()
        self._reader = _reader(store.absolute(out), system)
        self.said, self.domains = self._reader.said, self._reader.domains
        self.columns = tuple(self._reader.context)

    def annotate(self, *requests: Request | Iterable[Request]) -> Iterator[AnnotatedRequest]:
        """Yield the best reading of each request, in their order: of single ones, and of those of iterables.

        A request is a text, or a mapping with ``text`` and the context that the re-rankers use (``columns``), which is
        unknown where it is not given. One whose text or context is of another type has a ``problem``.
        """
        for some in in_batches(one_by_one(requests, _is_request, "requests, or an iterable of them")):
            yield from self._annotated(
                [{"text": one or ""} if one is None or isinstance(one, str) else one for one in some]
            )

    def _annotated(self, rows: list[Mapping[str, Any]]) -> Iterator[AnnotatedRequest]:
        tokens: list[list[str]] = []
        given: list[dict[str, Any]] = []
        problems: dict[str, str] = {}
        for number, row in enumerate(rows):
            try:
                found = _tokens(row)
                own = {name: column.value(row.get(name)) for name, column in self._reader.context.items()}
            except RejectRecord as reject:
                found, own, problems[str(number)] = [], {}, reject.reason
            tokens.append(found)
            given.append(own)
        columns: dict[str, Any] = {
            "id": [str(number) for number in range(len(rows))],
            "tokens": pa.array(tokens, pa.list_(pa.string())),
            "fold": pa.array([TEST] * len(rows), pa.int32()),
            "domain": pa.nulls(len(rows), pa.string()),
            "intent": pa.nulls(len(rows), pa.string()),
            "slots": pa.nulls(len(rows), pa.list_(SLOT)),
        }
        for name, column in self._reader.context.items():
            columns[name] = pa.array([own.get(name) for own in given], column.type)
        table = pa.table(columns)
        known = table.filter(pa.array([bool(one) for one in tokens]))
        made = self._reader.read(known)
        problems |= {name: problem for _, name, problem in lost(made)}
        read = {row["id"]: row for row in made.table.to_pylist()}
        for number, row in enumerate(rows):
            text, name = row.get("text"), str(number)
            text = text if isinstance(text, str) else ""
            ranked = self._reader.readings(read[name]) if name in read else None
            if ranked is None or ranked.best is None:
                none = NO_TEXT if ranked is None or not ranked.readings else self._reader.none
                readings = () if ranked is None else tuple(map(dict, ranked.readings))
                yield AnnotatedRequest(text, readings=readings, problem=problems.get(name, none))
            else:
                yield _best(text, ranked.readings, ranked.best)


def _is_request(one: Any) -> bool:
    return one is None or isinstance(one, str | Mapping)


def _tokens(row: Mapping[str, Any]) -> list[str]:
    """Return the tokens of a request's text; raises :class:`~gristmill.shards.errors.RejectRecord` without one."""
    if "text" not in row:
        raise RejectRecord('has no "text"')
    text = row["text"]
    if not isinstance(text, str):
        raise RejectRecord(f'"text" is {type_of(text)}; expected a text')
    return read_text(whole(text, "text").rstrip(_MARKS), None)[1]


def _best(text: str, readings: Sequence[Mapping[str, Any]], best: int) -> AnnotatedRequest:
    first = readings[best]
    ordered = sorted(map(dict, readings), key=lambda one: (one != first, -one["confidence"]))
    slots = tuple(Slot(**slot) for slot in first["slots"])
    return AnnotatedRequest(text, first["domain"], first["intent"], slots, first["confidence"], tuple(ordered))


def run_models(found: Finished, system: str | None) -> RequestModels:
    """Return the models of a run's best system, or of ``system``; raises as :class:`RequestAnnotator`."""
    return (function_models if found.recipe == "expand" else ranked_models)(found, system)


def _reader(url: str, system: str | None) -> RequestReader:
    given = published_models(url, system)
    if given is None:
        given = run_models(open_finished(url, "annotate", "the output of a run that trains domain models"), system)
    return (function_reader if given.kind == "functions" else ranked_reader)(given)
