"""Interrupts and code that loses them: C libraries that call Python, and swallow what it raises.

A signal's handler runs wherever Python happens to be, also in a function that libsndfile, FFmpeg or eSpeak NG calls. An
exception raised there does not arrive: the library goes on as if the read had failed, and a good file is found damaged.
So calls of such libraries are :func:`held`. If one is lost in code that is not, as a user's actor may be, :func:`check`
finds it before work is committed.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_NUMBERS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

_handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}  # those that `_note` stands for
_holding = False
_noted: int | None = None  # the signal that waits
_heard = _lost = False


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Let interrupts wait until the block ends, whoever handles them.

    The second one is handled at once, so that an impatient user can end a process whose library does not return.
    """
    global _holding
    if _holding or threading.current_thread() is not threading.main_thread():  # the only one with handlers
        yield
        return
    _take_over()
    _holding = True
    try:
        yield
    finally:
        _holding = False
        _give_back()
        _deliver()


@contextlib.contextmanager
def let_in() -> Iterator[None]:
    """Handle interrupts at once within a block that is held: around a wait, where what they raise is kept."""
    global _holding
    if not _holding or threading.current_thread() is not threading.main_thread():
        yield
        return
    _holding = False
    try:
        _deliver()
        yield
    finally:
        _holding = True


def note() -> None:
    """Say that this process was interrupted and is to leave what it does."""
    global _heard
    _heard = True


def lose() -> None:
    """Say that the interrupt did not arrive."""
    global _lost
    _lost = True


def regain() -> bool:
    """Return whether the interrupt did not arrive; the caller raises it again then."""
    global _lost
    was, _lost = _lost, False
    return was


def check() -> None:
    """Raise the interrupt of a process that was interrupted, and goes on as it did not arrive."""
    if _heard:
        regain()
        raise KeyboardInterrupt


def _take_over() -> None:
    # An interrupt that arrives meanwhile leaves some handlers replaced: `_note` calls them where nothing is held.
    for number in _NUMBERS:
        handler = signal.getsignal(number)
        if callable(handler) and handler is not _note:
            _handlers[number] = handler
            signal.signal(number, _note)


def _give_back() -> None:
    for number, handler in _handlers.items():
        if signal.getsignal(number) is _note:
            signal.signal(number, handler)


def _deliver() -> None:
    global _noted
    number, _noted = _noted, None
    if number is not None:
        signal.raise_signal(number)


def _note(number: int, frame: FrameType | None) -> None:
    global _noted
    if not _holding:
        _noted = None
        _handlers[number](number, frame)
    elif _noted is None:
        _noted = number
    else:
        for one in (_noted, number):
            with contextlib.suppress(BaseException):  # would be lost; the first still waits
                _handlers[one](one, frame)
