"""Records of CSV files, whose quoted cells may run over several lines."""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Iterator

from gristmill.actors.sources.reading import LINE_BYTES, all_lines

_MOST_LINES = 1000  # of a record


def csv_records(file: str, delimiter: str = ",") -> Iterator[tuple[int, bytes]]:
    """Yield the records of a file, each as its lines, with the number of its first line; blank lines are left out.

    A line whose quote is not closed costs itself: lines are joined only if they make one record together.
    """
    numbered = enumerate(all_lines(file), 1)
    put_back: deque[tuple[int, bytes]] = deque()

    def following() -> Iterator[tuple[int, bytes]]:
        while line := put_back.popleft() if put_back else next(numbered, None):
            yield line

    for number, line in following():
        if not line.strip():
            continue
        taken: list[tuple[int, bytes]] = []
        whole = line
        if _is_open(line):
            for more in following():
                taken.append(more)
                whole += more[1]
                if _is_open(more[1]) or len(taken) == _MOST_LINES or len(whole) > LINE_BYTES:
                    break
            if not (taken and _is_record(whole, delimiter)):
                whole = line
                put_back.extendleft(reversed(taken))
        yield number, whole


def _is_open(line: bytes) -> bool:
    """Return whether a line opens a quote that it does not close, or closes one that it does not open."""
    return line.count(b'"') % 2 == 1 and len(line) <= LINE_BYTES


def _is_record(data: bytes, delimiter: str) -> bool:
    if data.count(b'"') % 2 or len(data) > LINE_BYTES:
        return False
    text = io.StringIO(data.decode("utf-8", "replace"), newline="")
    try:
        return sum(1 for _ in csv.reader(text, delimiter=delimiter, strict=True)) == 1
    except csv.Error:
        return False
