"""Two runs under one output: the second waits from where something is to be made, and finds what the first made."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from gristmill.pipelines.run import Run
from gristmill.shards import store
from gristmill.shards.errors import UserError
from gristmill.shards.lease import FOLDER, Lease


@contextlib.contextmanager
def leased(run: Run, check: Callable[[], None]) -> Iterator[None]:
    """Let a run take the lease on its output when it has something to make, and give it back at the end.

    A run that has nothing to make takes none, since it writes nothing. ``check`` is called before the lease is taken.
    A mistake of the user's that shows before anything was finished leaves nothing behind.

    Raises:
        LeaseLost: another run took this one for dead and works in its place.
    """
    lease = Lease(run.out, _interrupt if threading.current_thread() is threading.main_thread() else None)
    new = False

    def begin() -> None:
        nonlocal new
        if not lease.held:
            check()
            lease.take(run.progress.say)
            new = store.list_names(run.out) == [FOLDER]
        lease.check()

    run.on_work = begin
    try:
        yield
    except UserError:
        lease.check()
        if new and not run.trace:
            for name in store.list_names(run.out):
                if name != FOLDER:
                    store.remove(store.join(run.out, name))
            lease.release()
            if store.is_local(run.out):
                with contextlib.suppress(OSError):  # another run came meanwhile
                    Path(store.filesystem(run.out)[1]).rmdir()
        raise
    except KeyboardInterrupt:
        lease.check()
        raise
    finally:
        lease.release()


def _interrupt() -> None:
    """Wake the main thread from whatever it waits for, as Ctrl-C does."""
    if callable(signal.getsignal(signal.SIGINT)):  # started in the background it may be ignored
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
