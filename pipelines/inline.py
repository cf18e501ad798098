"""Stages run on rows at hand, in this process, and lines of text as such rows."""

from __future__ import annotations

import itertools
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa

from gristmill.actors.sources.reading import LINE_BYTES, all_lines
from gristmill.shards import store
from gristmill.shards.errors import UserError
from gristmill.shards.stage import BatchFunction, Stage
from gristmill.shards.work import StageWorker, Work

STDIN = "-"
_AT_ONCE = 64  # lines

T = TypeVar("T")


class Inline:
    """Stages whose actors are loaded once, at their first rows; a stage that ``beside`` has too is loaded for both."""

    def __init__(self, *stages: Stage, beside: Inline | None = None) -> None:
        self._stages = stages
        self._workers: dict[int, StageWorker] = {} if beside is None else beside._workers

    def load(self, stage: Stage) -> BatchFunction:
        """Return the actor of one of the stages; what is wrong with what it loads is raised here."""
        return self._worker(stage).actor

    def __call__(self, table: pa.Table) -> Work:
        """Return what the stages make of rows, which have an ``id``, with those that were rejected or broke one."""
        work = Work("inline", table, table.num_rows)
        for worker in [self._worker(stage) for stage in self._stages]:
            work = worker(work)
        return work

    def _worker(self, stage: Stage) -> StageWorker:
        if id(stage) not in self._workers:  # which holds the stage
            self._workers[id(stage)] = StageWorker(stage, 0)
        return self._workers[id(stage)]


def lost(work: Work) -> Iterator[tuple[str, str, str]]:
    """Yield the input record, the id and the reason of each record that was rejected or quarantined."""
    for reason, tables in (("reason", work.rejects), ("error", work.quarantine)):
        for table in tables:
            yield from zip(*(table[name].to_pylist() for name in ("origin", "id", reason)), strict=True)


class InputLine(NamedTuple):
    """A line of a file."""

    place: str
    """The file, as it was given."""
    number: int
    text: str | None
    problem: str | None = None
    """Why there is no text."""

    @property
    def where(self) -> str:
        """Its file and number."""
        return f"{self.place}:{self.number}"


def read_lines(places: Sequence[str]) -> Iterator[InputLine]:
    """Yield the lines of files, ``.gz`` too, of pipes and of standard input (``-``), in order and blank ones too.

    One that is not UTF-8 or too long has no text.

    Raises:
        UserError: there is no such file.
    """
    for place in places:
        if place != STDIN and not store.exists(store.absolute(place)):
            raise UserError(f"{place}: no such file; expected one with a text in each line, or texts on standard input")
    for place in places:
        for number, line in enumerate(_lines(place), 1):
            if len(line) > LINE_BYTES:
                yield InputLine(place, number, None, "longer than a text")
                continue
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError:
                yield InputLine(place, number, None, "not UTF-8")
            else:
                yield InputLine(place, number, text)


def _lines(place: str) -> Iterator[bytes]:
    if place == STDIN:
        yield from sys.stdin.buffer
    elif is_pipe(place):
        with open(store.absolute(place), "rb") as pipe:
            yield from pipe
    else:
        yield from all_lines(store.absolute(place))


def is_pipe(place: str) -> bool:
    """Return whether a place is a named pipe, or a process that the shell substitutes (``<(...)``): read once."""
    try:
        return "://" not in place and stat.S_ISFIFO(os.stat(store.absolute(place)).st_mode)
    except (OSError, ValueError):
        return False


def one_by_one(given: Iterable[Any], is_one: Callable[[Any], bool], expected: str) -> Iterator[Any]:
    """Yield what a caller gives, one by one: each is a single thing by ``is_one``, or an iterable of such.

    Raises:
        TypeError: something is neither.

    Example:
        >>> list(one_by_one(["on", ["off", "up"]], lambda one: isinstance(one, str), "texts"))
        ['on', 'off', 'up']
    """
    for some in given:
        if not is_one(some) and not isinstance(some, Iterable):
            raise TypeError(f"{some!r:.80} is given; expected {expected}")
        for one in [some] if is_one(some) else some:
            if not is_one(one):
                raise TypeError(f"{one!r:.80} is given; expected {expected}")
            yield one


def texts_of(given: Iterable[Any]) -> Iterator[str | None]:
    """Yield texts that are given alone or in iterables.

    Raises:
        TypeError: something else is given.
    """
    return one_by_one(given, lambda one: one is None or isinstance(one, str), "texts, or an iterable of them")


def in_batches(items: Iterable[T], size: int = _AT_ONCE) -> Iterator[list[T]]:
    """Yield items in batches; one by one where somebody types them."""
    rest = iter(items)
    size = 1 if sys.stdin is not None and sys.stdin.isatty() else size
    while batch := list(itertools.islice(rest, size)):
        yield batch
