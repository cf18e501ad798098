"""The command ``transcribe``: transcripts on standard output or in files."""

from __future__ import annotations

import posixpath
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any

from gristmill.pipelines.pace import clock
from gristmill.pipelines.progress import plural
from gristmill.pipelines.speech.recordings import is_listed
from gristmill.pipelines.speech.transcribe import QUIET, Transcriber, Utterance
from gristmill.pipelines.speech.transcripts import SUFFIXES, Form, Writer
from gristmill.shards import process, store
from gristmill.shards.errors import UserError
from gristmill.shards.safe_text import safe

_EVERY = 10.0  # s between two lines of progress


def tell(sentence: str) -> None:
    """Say something on standard error."""
    print(f"gristmill: {safe(sentence)}", file=sys.stderr, flush=True)


def print_transcripts(
    model: str, places: Sequence[str], form: Form, into: str | None, *, quiet: bool, **settings: Any
) -> int:
    """Print the transcripts of recordings, or write a file of each into a folder; return how many cannot be read.

    ``settings`` are those of a :class:`~gristmill.pipelines.speech.transcribe.Transcriber`.

    Raises:
        UserError: as the Transcriber, or subtitles of several recordings would go to standard output.
    """
    process.leave_out_pandas()
    several = len(places) > 1 or is_listed(places[0])
    if form == "srt" and several and into is None:
        raise UserError("--format srt: subtitles are a file for each recording; expected one recording, or --into DIR")
    transcriber = Transcriber(model, say=(lambda sentence: None) if quiet else tell, **settings)
    if not quiet:
        tell(f"{transcriber.said} (speech at {transcriber.sampling_rate:,} Hz)")
    write = _Folder(store.absolute(into), form) if into is not None else _print(Writer(form, named=several))
    unread, pace = 0, _Pace(quiet)
    for one in transcriber.transcribe(*places):
        write(one)
        if one.problem is not None:
            unread += one.problem not in QUIET
            if one.problem not in QUIET or not quiet:
                what = "no text" if one.problem in QUIET else "cannot be transcribed"
                tell(f"{one.audio}: {what} ({one.problem})")
        pace.count(one)
    if isinstance(write, _Folder):
        write.finish()
        if not quiet:
            corpus = f"; as a corpus: {shlex.quote(f'{into}/*.jsonl')}" if form == "jsonl" else ""
            tell(f"{plural(write.files, 'file')} in {into}{corpus}")
    if unread:
        tell(f"{plural(unread, 'recording')} could not be transcribed")
    return unread


def _print(writer: Writer) -> Callable[[Utterance], None]:
    def write(one: Utterance) -> None:
        for line in writer.lines(one):
            print(line, flush=True)  # who reads them may be waiting, or gone

    return write


class _Folder:
    """Writes a file for each recording that can be read, named after it."""

    def __init__(self, folder: str, form: Form) -> None:
        self.folder, self.form, self.files = folder, form, 0
        self._taken = set[str]()
        self._recording: list[Utterance] = []

    def __call__(self, one: Utterance) -> None:
        """Take the next utterance; those of a recording follow one another."""
        if self._recording and one.audio != self._recording[-1].audio:
            self.finish()
        self._recording.append(one)

    def finish(self) -> None:
        """Write the file of the last recording."""
        utterances, self._recording = self._recording, []
        if all(one.problem is not None and one.problem not in QUIET for one in utterances):
            return  # an empty file would say that nothing was spoken
        url = store.join(self.folder, self._free(utterances[0]))
        writer = Writer(self.form, folder=posixpath.dirname(url))
        text = "".join(f"{line}\n" for one in utterances for line in writer.lines(one))
        store.write_bytes(url, text.encode())
        self.files += 1

    def _free(self, one: Utterance) -> str:
        """Return the file's name: the recording's, without its suffix unless that is taken."""
        path = PurePosixPath(one.id.partition("@")[0].lstrip("/"))
        names = (f"{path.with_suffix('')}{SUFFIXES[self.form]}", f"{path}{SUFFIXES[self.form]}")
        name = next((name for name in names if name not in self._taken), names[1])
        self._taken.add(name)
        return name


class _Pace:
    """Says how far it is, every ten seconds."""

    def __init__(self, quiet: bool) -> None:
        self._begun = self._said = time.monotonic()
        self._quiet, self._recordings, self._seconds, self._last = quiet, 0, 0.0, ""

    def count(self, one: Utterance) -> None:
        """Count an utterance."""
        self._recordings += one.audio != self._last
        self._last, self._seconds = one.audio, self._seconds + one.duration
        now = time.monotonic()
        if not self._quiet and now - self._said >= _EVERY:
            self._said = now
            speed = self._seconds / (now - self._begun)
            tell(f"{plural(self._recordings, 'recording')}, {clock(self._seconds)} of speech, {speed:.0f} x real time")
