"""The end of a command by a signal, or because what it runs on is gone: a sentence and exit code 130, always.

It is imported before anything else, so that a signal is heard while the command's own modules are still loaded: nothing
heavy may be imported here.
"""

from __future__ import annotations

import _thread
import atexit
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any, NoReturn

from gristmill.cluster.guard import CODE, KEPT, leave_now
from gristmill.shards import interrupts
from gristmill.shards.errors import Interrupted

_AGAIN_SECONDS = 0.05  # after which an interrupt that was swallowed is raised again
_PLAIN = "interrupted"

_listening = False
_working = False
_heard = 0  # the signal
_again = False  # whether the next signal only raises again what was swallowed
_left = False
_sentence = _PLAIN
_code: int | None = None  # of the process, once it is known


def listen() -> None:
    """Make signals that end a process interrupt this one.

    While a command works, the first one ends it in order; otherwise, and after the first, a signal ends it at once.
    Signals that are ignored, as in a background process or under ``nohup``, stay so.
    """
    global _listening
    if _listening:
        return
    _listening = True
    atexit.register(_end)  # called last, as it is the first
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # there is no SIGHUP on Windows
        if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _hear)
    sys.unraisablehook = _see


def begin(*, resumes: bool) -> None:
    """Say that a command begins to work, which leaves in order from now on, and whether it resumes when repeated."""
    global _working, _sentence
    _working, _sentence = True, f"{_PLAIN}; {KEPT}" if resumes else _PLAIN


def over() -> None:
    """Say that a command has nothing more to leave in order."""
    global _working
    _working = False


def leave(sentence: str = "") -> NoReturn:
    """Leave an interrupted command with a sentence, or the one about its kind.

    If it uses Ray, its processes are killed and this one ends at once: Ray's own end takes seconds, or hangs if some of
    it is gone.
    """
    global _left
    _left, sentence = True, sentence or _sentence
    session = _session()
    if session is not None and session.started():
        try:
            session.check(KeyboardInterrupt())
        except Interrupted as gone:
            sentence = str(gone)
        leave_now(f"gristmill: {sentence}", session.kill)
    else:
        print(f"gristmill: {sentence}", file=sys.stderr)
    sys.exit(CODE)


def ends(code: int) -> None:
    """Say with which code the process ends from now on: at once after the handlers of its exit.

    While Python takes itself down a thread of a library that still runs, as those of object storage do, can abort it:
    it may hold the lock of a stream, or destroy what another uses.
    """
    global _code
    _code = code


def _hear(number: int, frame: FrameType | None) -> None:
    global _heard, _again
    if _again:
        _again = False
        if interrupts.regain() and _working and not _left:
            raise KeyboardInterrupt
        return
    if _heard or not _working:
        session = _session()
        leave_now(f"gristmill: {_sentence}", session.kill if session is not None else lambda: None)
        return  # it is leaving
    _heard = number
    interrupts.note()
    raise KeyboardInterrupt


def _see(lost: sys.UnraisableHookArgs) -> None:
    """Raise an interrupt again that was raised where nothing can be: in a callback of C code, or a ``__del__``."""
    global _again
    if not _heard or not issubclass(lost.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return
    interrupts.lose()
    if not _again:
        _again = True
        _thread.start_new_thread(_raise_again, ())  # threading's own would take locks, which the main thread may hold


def _raise_again() -> None:
    time.sleep(_AGAIN_SECONDS)
    signal.pthread_kill(threading.main_thread().ident or 0, _heard)


def _end() -> None:
    """End the process here, as :func:`ends` says; an interrupted one too: while Python takes itself down, a further
    signal would end it as signals do."""
    code = CODE if _left else _code
    if code is None:
        return
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # nobody reads it any more
        code = code or 1
    except OSError as error:
        print(f"gristmill: standard output: {error}", file=sys.stderr)
        code = code or 1
    except ValueError:  # closed
        pass
    os._exit(code)  # what was said on standard error has left with its line


def _session() -> Any:
    """Return the module of Ray's session, which is loaded only with a runner that needs it."""
    return sys.modules.get("gristmill.cluster.session")
