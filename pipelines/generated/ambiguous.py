"""Requests with ambiguous words: "play blue river" is a song, a film or a book, depending on the device.

They show the effect of context features on a re-ranker (Su et al., SLT 2018): on a television a film is far more
likely. The truth is drawn given the device and the hour, so that no model of the words alone can beat the prior.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from gristmill.shards.random import RecordRandom
from gristmill.shards.schema import REQUESTS

VERSION = 2  # of the generator
DEVICES = ("speaker", "television", "phone")
# The device, the hour of the day (6 to 24), and whether the words are ambiguous.
ADDED = (pa.field("device", pa.string()), pa.field("hour", pa.float64()), pa.field("ambiguous", pa.bool_()))
FIELDS = pa.schema([*REQUESTS, *ADDED])

_SHARE = 0.5  # share of ambiguous requests
_DEVICE = (0.45, 0.3, 0.25)
_INTENTS = {"music": "play_song", "video": "play_film", "books": "read_book"}
# Probabilities of the meanings of a bare "play X" on each device, by day and from 20:00.
_MEANT = {
    "speaker": ((0.85, 0.03, 0.12), (0.45, 0.03, 0.52)),
    "television": ((0.06, 0.92, 0.02), (0.03, 0.95, 0.02)),
    "phone": ((0.62, 0.28, 0.10), (0.35, 0.40, 0.25)),
}
_BARE = ("play {title}", "start {title}", "put on {title}", "i want {title}", "can you play {title} please")
_CLEAR = {
    "music": ("play the song {title}", "sing {title}", "play the album {title}", "put {title} on repeat as music"),
    "video": ("watch {title}", "show me the film {title}", "play the movie {title}", "stream the trailer of {title}"),
    "books": (
        "read me {title}",
        "open the book {title}",
        "play the audiobook {title}",
        "read the next chapter of {title}",
    ),
}
_TITLES = (
    "blue|silver|broken|golden|silent|endless|burning|hidden|lonely|midnight|summer|winter|crimson|distant|frozen|"
    "wild|paper|glass|electric|velvet|stolen|hollow|morning|northern|little|secret|falling|second|empty|restless",
    "river|heart|road|garden|city|stars|letters|train|mirror|island|shadow|dance|storm|harbour|season|kingdom|"
    "window|fire|bridge|dream|forest|diamond|sky|tide|voices|orchard|hunter|promise|lantern|sea",
)


def requests(records: int, seed: int, rows: int = 2000) -> Iterator[pa.Table]:
    """Yield typed requests (``FIELDS``); ``ambiguous`` is true for those that name no kind of media."""
    draw = RecordRandom(seed, "ambiguous")
    for first in range(0, records, rows):
        ids = [f"ambiguous/{i:07d}" for i in range(first, min(first + rows, records))]
        yield pa.Table.from_pylist([_request(key, draw(key)) for key in ids], schema=FIELDS)


def with_context(tables: Iterable[pa.Table], seed: int) -> Iterator[pa.Table]:
    """Yield other requests with a device and an hour, independent of their meaning."""
    draw = RecordRandom(seed, "context")
    for table in tables:
        drawn = [_context(draw(key)) for key in table["id"].to_pylist()]
        columns = [*zip(*drawn, strict=True), [False] * len(drawn)]
        for field, values in zip(ADDED, columns, strict=True):
            table = table.append_column(field, pa.array(values, field.type))
        yield table


def _context(rng: np.random.Generator) -> tuple[str, float]:
    return DEVICES[rng.choice(len(DEVICES), p=_DEVICE)], round(float(rng.uniform(6, 24)), 2)


def _request(key: str, rng: np.random.Generator) -> dict[str, object]:
    device, hour = _context(rng)
    bare = bool(rng.random() < _SHARE)
    odds = _MEANT[device][hour >= 20] if bare else (1 / 3, 1 / 3, 1 / 3)
    domain = tuple(_INTENTS)[rng.choice(len(_INTENTS), p=odds)]
    pattern = _one(rng, _BARE if bare else _CLEAR[domain])
    title = " ".join(_one(rng, words.split("|")) for words in _TITLES)
    before = pattern.partition("{title}")[0].split()
    text = pattern.format(title=title)
    slot = {"name": "title", "value": title, "start": len(before), "end": len(before) + 2}
    return {
        "id": key,
        "text": text,
        "tokens": text.split(),
        "domain": domain,
        "intent": _INTENTS[domain],
        "slots": [slot],
        "lang": "en",
        "label_source": "synthetic",
        "device": device,
        "hour": hour,
        "ambiguous": bare,
    }


def _one(rng: np.random.Generator, choices: tuple[str, ...] | list[str]) -> str:
    return choices[rng.integers(len(choices))]
