"""What the start of a Ray in this process needs, so that it is quiet and lasts."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future


def lastingly(call: Callable[[], None]) -> None:
    """Call a function in the main thread or one that goes on: Linux ends Ray's processes with the thread that started
    them."""
    if threading.current_thread() is threading.main_thread():
        call()
        return
    done: Future[None] = Future()

    def lasting() -> None:
        try:
            call()
        except BaseException as error:
            done.set_exception(error)
            return
        done.set_result(None)
        threading.Event().wait()

    threading.Thread(target=lasting, name="ray", daemon=True).start()
    done.result()


@contextlib.contextmanager
def signals_kept() -> Iterator[None]:
    """Keep the handler of SIGTERM, which Ray replaces by one of its own, and that by one that aborts with a dump."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Discard what Ray's C++ code writes to standard error while starting; errors are raised as exceptions."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
