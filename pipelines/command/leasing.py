"""Two runs with one output: the second waits at its first missing result, and then finds those of the first."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from gristmill.pipelines.command.planfile import PlanKeeper
from gristmill.pipelines.command.status import StatusReader
from gristmill.pipelines.run import Run
from gristmill.shards import store
from gristmill.shards.errors import GristmillError, UserError
from gristmill.shards.lease import FOLDER, Lease

FIRST_LOOK, LOOK = 1.0, 10.0  # seconds until it is looked how far the other run is, and between two looks


@contextlib.contextmanager
def leased(run: Run, check: Callable[[], None], keeper: PlanKeeper | None = None) -> Iterator[None]:
    """Make a run take the lease on its output before its first work, and release it at the end.

    A run with nothing to make writes nothing and takes no lease. ``check`` is called before the lease is taken. A user
    error before anything was finished leaves no files behind. While it holds the lease, its plan is kept.

    Raises:
        LeaseLost: another run presumed this one dead and took its place.
    """
    lease = Lease(run.out, _interrupt if threading.current_thread() is threading.main_thread() else None)
    new = over = False
    keeper = keeper or PlanKeeper(run)

    def begin() -> None:
        nonlocal new
        if not lease.held:
            check()
            with _OtherRun(run) as other:
                lease.take(other.met)
            keeper.foresee()
            new = store.list_names(run.out) == [FOLDER]
            keeper.begin(lambda: lease.held and not lease.lost)
        lease.confirm()

    run.on_work = begin
    try:
        yield
        over = True
    except UserError:
        lease.check()
        if new and not run.trace:
            keeper.end(over=False, write=False)
            for name in store.list_names(run.out):
                if name != FOLDER:
                    store.remove(store.join(run.out, name))
            lease.release()
            if store.is_local(run.out):
                with contextlib.suppress(OSError):  # another run started meanwhile
                    Path(store.filesystem(run.out)[1]).rmdir()
        raise
    except KeyboardInterrupt:
        lease.check()
        raise
    finally:
        keeper.end(over=over)
        lease.release()


class _OtherRun:
    """Tells how far the run is that is waited for, by what it has committed and the plan that it keeps."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._over, self._telling = threading.Event(), threading.Lock()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> _OtherRun:
        return self

    def __exit__(self, *_: object) -> None:
        with self._telling:
            self._over.set()
        self._run.progress.waits("")

    def met(self, sentence: str) -> None:
        """Tell of a run that is at work, and from now on how far it is."""
        self._run.progress.say(sentence)
        if self._thread is None:
            self._thread = threading.Thread(target=self._look, name="other run", daemon=True)
            self._thread.start()

    def _look(self) -> None:
        reader, pause = StatusReader(self._run.out), FIRST_LOOK
        while not self._over.wait(pause):
            pause = LOOK
            try:
                status = reader.read()
            except (OSError, GristmillError):
                continue  # it has made nothing yet, or the storage does not answer
            except Exception:
                return  # what is told of a run is worth no run
            with self._telling:
                if self._over.is_set():
                    return
                self._run.progress.waits("" if status.over else status.whole.words)


def _interrupt() -> None:
    """Interrupt the main thread in any wait, as Ctrl-C does."""
    if callable(signal.getsignal(signal.SIGINT)):  # it may be ignored in a background process
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
