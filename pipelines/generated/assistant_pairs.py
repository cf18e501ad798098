"""English smart-home requests with Hindi ones of the same meaning: pairs, and references for translations.

Both languages' templates are grouped by meaning: the intent, the kind of device, and whether it is about the current
room. A Hindi sentence is drawn with the same meaning and the same slots, by the catalogue. Two such sentences mean the
same; they are not word-by-word translations.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from gristmill.pipelines.generated.assistant import Request, identity, record, sample, say
from gristmill.pipelines.generated.assistant_catalogue import catalogue, dictionary
from gristmill.pipelines.generated.assistant_templates import load
from gristmill.shards.errors import UserError
from gristmill.shards.random import RecordRandom
from gristmill.shards.schema import ID, PAIRS, REQUESTS

SOURCE, TARGET = "en", "hi"
REFERENCES = pa.schema([ID, pa.field("text", pa.string()), pa.field("references", pa.list_(pa.string()))])
VERSION = 2

_NOTHING_NEW = 2000  # draws in a row without a new text before giving up
_TRIES = 100  # English requests drawn to find one with Hindi values


class Said(NamedTuple):
    """An English request, and Hindi sentences of the same meaning."""

    request: Request
    targets: list[str]


def made_by() -> dict[str, Any]:
    """Return all that decides the pairs besides seed and settings."""
    return {"pairs": VERSION, "catalogue": catalogue(), "dictionary": dictionary(), **identity()}


def check_domains(domains: Collection[str]) -> None:
    """Raise :class:`UserError` for domains without templates in both languages."""
    known = sorted(set(load(SOURCE).domains) & set(load(TARGET).domains))
    unknown = sorted(set(domains) - set(known))
    if unknown or not domains:
        raise UserError(f"domains: {unknown or 'none given'}; expected some of both languages: {', '.join(known)}")


def pairs(
    records: int,
    domains: Collection[str],
    seed: int,
    without: Collection[str] = (),
    name: str = "pairs",
    rows: int = 2000,
) -> Iterator[pa.Table]:
    """Yield ``records`` pairs of the domains as tables of ``PAIRS``; no target is in ``without``.

    Record n depends only on seed, name and n.
    """
    for batch in _records(records, domains, seed, name, rows, 1, without):
        yield _pairs((key, " ".join(said.request.tokens), said.targets[0]) for key, said in batch)


def dictionary_pairs(times: int) -> Iterator[pa.Table]:
    """Yield the entries of a small dictionary as a table of ``PAIRS``, ``times`` times."""
    for time in range(times):
        yield _pairs((f"dictionary/{n:03d}-{time}", *entry) for n, entry in enumerate(dictionary()))


def _pairs(given: Iterable[tuple[str, str, str]]) -> pa.Table:
    shared = {"source_lang": SOURCE, "target_lang": TARGET, "label_source": "synthetic"}
    return pa.Table.from_pylist(
        [{"id": key, "source": source, "target": target, **shared} for key, source, target in given], schema=PAIRS
    )


def references(
    records: int, domains: Collection[str], seed: int, most: int = 8, name: str = "references", rows: int = 2000
) -> Iterator[pa.Table]:
    """Yield ``records`` English requests with up to ``most`` distinct Hindi sentences of the same meaning."""
    for batch in _records(records, domains, seed, name, rows, most):
        made = [
            {"id": key, "text": " ".join(said.request.tokens), "references": sorted(set(said.targets))}
            for key, said in batch
        ]
        yield pa.Table.from_pylist(made, schema=REFERENCES)


def texts(
    records: int, lang: str, domains: Collection[str], seed: int, without: Collection[str] = (), rows: int = 2000
) -> Iterator[pa.Table]:
    """Yield ``records`` distinct requests of the domains as tables of ``REQUESTS``; none is in ``without``."""
    name = f"texts_{lang}"
    draw, seen, kept = RecordRandom(seed, name), set(without), []
    last = 0  # the draw that gave the newest text
    for number in count():
        if number - last > _NOTHING_NEW:
            raise UserError(
                f"in_domain: the templates of {sorted(domains)} give fewer than {records} distinct requests in "
                f"{lang}; expected fewer records or more domains"
            )
        key = f"{name}/{number:07d}"
        made = _sample(draw(key), lang, domains)
        text = " ".join(made.tokens)
        if text not in seen:
            seen.add(text)
            last = number
            kept.append(record(key, made, lang))
        if len(kept) == rows or len(seen) == records + len(without):
            yield pa.Table.from_pylist(kept, schema=REQUESTS)
            kept = []
        if len(seen) == records + len(without):
            return


def _records(
    records: int,
    domains: Collection[str],
    seed: int,
    name: str,
    rows: int,
    targets: int,
    without: Collection[str] = (),
) -> Iterator[list[tuple[str, Said]]]:
    draw, kept_apart = RecordRandom(seed, name), set(without)
    for first in range(0, records, rows):
        keys = [f"{name}/{n:07d}" for n in range(first, min(first + rows, records))]
        yield [(key, _said(draw(key), domains, targets, kept_apart)) for key in keys]


def _sample(rng: np.random.Generator, lang: str, domains: Collection[str]) -> Request:
    """Draw a request of one of the domains, with equal probability."""
    return sample(rng, lang, sorted(domains)[rng.integers(len(domains))])


def _said(rng: np.random.Generator, domains: Collection[str], targets: int, without: set[str]) -> Said:
    """Draw an English request with Hindi slot values, and sentences of its meaning in Hindi."""
    for _ in range(_TRIES):
        request = _sample(rng, SOURCE, domains)
        known = [catalogue().get(value) for value in request.values.values()]
        if None in known:
            continue
        slots = dict(zip(request.values, map(str, known), strict=True))
        made = [say(rng, TARGET, request.meaning, slots) for _ in range(targets)]
        texts = [" ".join(tokens) for tokens in made if tokens is not None]
        if texts and not without.intersection(texts):
            return Said(request, texts)
    raise UserError(f"domains: none of {sorted(domains)} has requests in both languages; expected one that does")
