"""The end of a command by a signal, or because what it runs on is gone: a sentence and exit code 130, always."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Any, NoReturn

import typer

from gristmill.cluster.guard import CODE, leave_now
from gristmill.shards.errors import Interrupted

SENTENCE = "interrupted; committed work is kept, and the same command resumes it"

_heard = False


def listen() -> None:
    """Make signals that end a process interrupt this one: the first in order, any further one at once.

    Signals that are ignored, as in a background process or under ``nohup``, stay so.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # there is no SIGHUP on Windows
        if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _hear)


def leave(sentence: str = SENTENCE) -> NoReturn:
    """Leave an interrupted command with a sentence.

    If it uses Ray, its processes are killed and this one ends at once: Ray's own end takes seconds, or hangs if some of
    it is gone.
    """
    session = _session()
    if session is not None and session.started():
        try:
            session.check(KeyboardInterrupt())
        except Interrupted as gone:
            sentence = str(gone)
        leave_now(f"gristmill: {sentence}", session.kill)
    else:
        print(f"gristmill: {sentence}", file=sys.stderr)
    raise typer.Exit(CODE) from None


def _hear(number: int, frame: FrameType | None) -> None:
    global _heard
    if _heard:
        session = _session()
        leave_now(f"gristmill: {SENTENCE}", session.kill if session is not None else lambda: None)
        return  # it is leaving
    _heard = True
    raise KeyboardInterrupt


def _session() -> Any:
    """Return the module of Ray's session, which is loaded only with a runner that needs it."""
    return sys.modules.get("gristmill.cluster.session")
