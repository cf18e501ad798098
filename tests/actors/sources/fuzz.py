"""Listing of a damaged file beside a whole one of its kind: ``python -m tests.actors.sources.fuzz FORMAT NUMBER SEED``.

Each mutation damages one file in a way of its own. The listing must end without any error but a :class:`UserError`
where there is no other file, must have all records of the whole file, and those of the damaged file must be storable.
"""

from __future__ import annotations

import faulthandler
import json
import random
import resource
import sys
import tempfile
from pathlib import Path

from gristmill.actors.sources.unlisted import divided
from tests.actors.sources.fuzz_formats import FORMATS, PARTS, Format

TOKENS = [
    *(
        b"\0",
        b"\r",
        b"\n",
        b'"',
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"\\ud800",
        b"9" * 400,
        b"9" * 5000,
        b"-1",
        b"1e999",
        b"NaN",
    ),
    *(b"null", b"[", b"{" * 2000, b"[" * 3000, b"<x>" * 2000, b"&bomb;", b'encoding="utf-99"', b'encoding="shift_jis"'),
    *(b"77777777777\0", b"\x80" + b"\0" * 7 + b"\x04\0\0\0", b"\xff" * 12, b"\x80" + b"\xff" * 11, b"charset=zip"),
    *(b"\x00\x00\x00\x80", b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff\x0f", b'"audio_filepath": "a\\u0000b"', b"../" * 50),
]


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return the bytes with one to three faults."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        place, kind = rng.randrange(len(data) + 1), rng.randrange(8)
        length = min(len(data) - place, rng.choice((1, 1, 2, 4, 16, 100, 600)))
        if kind == 0:
            data = data[:place]
        elif kind == 1:
            data = data[:place] + data[place + length :]
        elif kind == 2:
            data = data[:place] + data[place : place + length] * rng.choice((2, 3, 50)) + data[place + length :]
        elif kind == 3:
            data = data[:place] + rng.randbytes(length) + data[place + length :]
        elif kind == 4:
            data = data[:place] + rng.choice(TOKENS) + data[place:]
        elif kind == 5:
            token = rng.choice(TOKENS)
            data = data[:place] + token + data[place + len(token) :]
        elif length:
            changed = data[place] ^ (1 << rng.randrange(8)) if kind == 6 else rng.choice((0, 0x7F, 0x80, 0xFF))
            data = data[:place] + bytes([changed]) + data[place + 1 :]
    return data


PARSED = 8  # each so many-th listing is parsed as well; of audio, each
SECONDS = 60  # of a mutation: a decoder that takes longer is ended, with where it is


def _ids(format: Format, url: str, parsed: bool = True) -> tuple[set[str], int]:
    """List a folder, and parse what is listed; return the ids of all records, and the number of files not listed."""
    ids: set[str] = set()
    away = 0
    for table in format.listing(url):
        kept, files = divided(table)
        away += files.num_rows
        assert not ids.intersection(kept["id"].to_pylist())
        ids.update(kept["id"].to_pylist())
        if parsed and kept.num_rows:
            format.parse(kept)
    return ids, away


def fuzz(name: str, number: int, seed: int) -> dict[str, int]:
    """Damage a file of a format many times; return the counts of mutations, and the growth of memory in MB."""
    format, rng = FORMATS[name], random.Random(f"{seed}/{name}")
    parsed = 1 if format.is_audio else PARSED
    with tempfile.TemporaryDirectory() as folder:
        names = list(format.files)
        paths = {
            part: [Path(folder, part, format.pattern.replace("*", f"{part}-") or file) for file in names]
            for part in PARTS
        }
        for part in PARTS:
            for path, data in zip(paths[part], format.files.values(), strict=True):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        url = f"{folder}/*/{format.pattern}" if format.pattern else folder
        whole, away = _ids(format, url)
        assert whole
        assert not away
        # Records that have ids of their own are the same in both files: the second is a duplicate, or it is not.
        wanted = {key for key in whole if PARTS[0] not in key and not key.endswith("~again") and "#line" not in key}
        assert wanted
        first = paths[PARTS[0]][0]
        good, before, unlisted = first.read_bytes(), _peak(), 0
        for attempt in range(number):
            data = mutated(good, rng)
            first.write_bytes(data)
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            try:
                found, away = _ids(format, url, parsed=attempt % parsed == 0)
                missing = wanted - found
                assert not missing, f"lost {missing}"
            except BaseException:
                print(f"{name}: mutation {attempt} of seed {seed}: {data[:300]!r}", file=sys.stderr)
                Path(tempfile.gettempdir(), f"fuzz-{name}").write_bytes(data)
                raise
            unlisted += away
            faulthandler.cancel_dump_traceback_later()
    return {"mutations": number, "unlisted": unlisted, "grown_mb": _peak() - before}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


if __name__ == "__main__":
    print(json.dumps(fuzz(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
