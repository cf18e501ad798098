"""Sources of gigabytes in one line, one row group, one unit: listed, or refused, in a bounded amount of memory."""

from __future__ import annotations

import gzip
import json
import random
import resource
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.actors.sources.pointers import Reader
from gristmill.actors.sources.speech import list_sources
from gristmill.actors.sources.text import TEXT_SIDES, Wanted, list_texts
from gristmill.actors.sources.unlisted import divided
from gristmill.shards.errors import UserError

GB = 1 << 30
MOST_GROWN = 500  # MB


def long_line(folder: Path) -> None:
    with open(folder / "a.txt", "wb") as file:
        file.write(b"one\n")
        file.writelines(b"x" * (1 << 20) for _ in range(1024))
        file.write(b"\ntwo\n")


def long_entry(folder: Path) -> None:
    entry = b'{"audio_filepath": "%s"}\n'
    with open(folder / "manifest.jsonl", "wb") as file:
        file.write(entry % b"a.wav" + entry[:20])
        file.writelines(b"x" * (1 << 20) for _ in range(1024))
        file.write(b'"}\n' + entry % b"b.wav")


def packed_line(folder: Path) -> None:
    letters = gzip.compress(bytes(random.Random(1).choices(b"abcdefgh ", k=1 << 20)))
    members = [gzip.compress(b"one\n"), *[letters] * 3000, gzip.compress(b"\ntwo\n")]
    (folder / "a.txt.gz").write_bytes(b"".join(members))


def bomb(folder: Path) -> None:
    (folder / "a.txt.gz").write_bytes(gzip.compress(b"\n" * (64 << 20)) * 48)


def row_group(folder: Path) -> None:
    texts = pa.array(["".join(random.Random(n).choices("abcdefgh ", k=1 << 20)) for n in range(8)])
    table = pa.table({"text": pa.chunked_array([texts] * 256)})
    pq.write_table(table, folder / "a.parquet", row_group_size=GB, use_dictionary=False)


def audio_group(folder: Path) -> None:
    audio = pa.array([random.Random(n).randbytes(1 << 20) for n in range(8)])
    table = pa.table({"audio": pa.chunked_array([audio] * 256)})
    pq.write_table(table, folder / "a.parquet", row_group_size=GB, use_dictionary=False)


def unit(folder: Path) -> None:
    with open(folder / "a.tmx", "wb") as file:
        file.write(b"<tmx><body><tu><tuv lang='hi'><seg>one</seg></tuv></tu><tu><tuv lang='hi'><seg>")
        file.writelines(b"x" * (1 << 20) for _ in range(1024))


LISTED = {
    long_line: {None: 2, "line too long": 1},
    long_entry: {None: 2, "line too long": 1},
    packed_line: {None: 2, "line too long": 1},
    bomb: {"too large": 1},
    row_group: {None: 2048},
    audio_group: {None: 2048},
    unit: {None: 1, "too large": 1},
}
SPEECH = (long_entry, audio_group)


def listed(name: str, folder: str) -> dict[str | None, int]:
    """List a folder and read its rows of audio; return the counts of problems."""
    problems: Counter[str | None] = Counter()
    speech = name in {make.__name__ for make in SPEECH}
    try:
        tables = list_sources(folder) if speech else list_texts(folder, "c", Wanted(TEXT_SIDES, ("hi",), (None,)))
    except UserError as error:
        return {error.files["reason"][0].as_py(): 1}
    reader = Reader(1 << 20)
    for table in tables:
        kept, files = divided(table)
        problems.update([*kept["problem"].to_pylist(), *files["reason"].to_pylist()])
        for row in kept.to_pylist():
            if row["kind" if speech else "format"] == "row":
                assert reader.open(row)[1] == 1 << 20
    return dict(problems)


@pytest.mark.slow
@pytest.mark.parametrize("make", LISTED)
def test_memory_does_not_follow_the_size_of_what_is_listed(tmp_path: Path, make: object) -> None:
    make(tmp_path)
    command = [sys.executable, "-m", "tests.actors.sources.test_memory", make.__name__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    problems, grown = json.loads(done.stdout)
    assert problems == {json.dumps(key) if key is None else key: number for key, number in LISTED[make].items()}
    assert grown < MOST_GROWN


if __name__ == "__main__":
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = listed(*sys.argv[1:])
    print(json.dumps([found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before >> 10]))
