"""Requests to a home by what they mean: several wordings of the same intent with the same slot values.

From the templates of ``home-assistant-intents`` (:mod:`gristmill.pipelines.generated.assistant`), in one language.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.pipelines.generated import assistant
from gristmill.shards.random import RecordRandom
from gristmill.shards.schema import REQUEST_FIELDS

GROUP = pa.field("wording_of", pa.string())  # the number of its group: requests that were made to mean the same
WORDINGS = pa.schema([*REQUEST_FIELDS, GROUP])
_TRIES = 3  # draws for each wording: templates give the same one again and again
VERSION = 1


def wordings(meanings: int, most: int, lang: str = "en", seed: int = 0, rows: int = 2000) -> Iterator[pa.Table]:
    """Yield up to ``most`` wordings of each of ``meanings`` groups as tables of ``WORDINGS``.

    Group n depends on the seed and n alone.
    """
    draw = RecordRandom(seed, "wordings")
    held: list[dict[str, Any]] = []
    for number in range(meanings):
        group = f"wordings/{number:07d}"
        held += _group(group, draw(group), most, lang)
        if len(held) >= rows:
            yield pa.Table.from_pylist(held, schema=WORDINGS)
            held = []
    if held:
        yield pa.Table.from_pylist(held, schema=WORDINGS)


def _group(group: str, rng: np.random.Generator, most: int, lang: str) -> Iterator[dict[str, Any]]:
    first = assistant.sample(rng, lang)
    found = {tuple(first.tokens): first}
    for _ in range(most * _TRIES):
        if len(found) == most:
            break
        tokens = assistant.say(rng, lang, first.meaning, first.values)
        spans = None if tokens is None else _spans(tokens, first)
        if tokens is not None and spans is not None:
            found.setdefault(tuple(tokens), first._replace(tokens=tokens, slots=spans))
    for number, made in enumerate(found.values()):
        yield {**assistant.record(f"{group}/{number}", made, lang), GROUP.name: group}


def _spans(tokens: list[str], of: assistant.Request) -> list[tuple[str, int, int]] | None:
    """Return the places of a request's slot values in another wording; ``None`` where one is not to be told."""
    spans: list[tuple[str, int, int]] = []
    for name, value in sorted(of.values.items(), key=lambda slot: (-len(slot[1]), slot)):
        words = value.split()
        places = [
            start
            for start in range(len(tokens) - len(words) + 1)
            if tokens[start : start + len(words)] == words
            and all(start >= end or start + len(words) <= begin for _, begin, end in spans)
        ]
        if len(places) != 1:
            return None
        spans.append((name, places[0], places[0] + len(words)))
    return sorted(spans, key=lambda span: span[1])
