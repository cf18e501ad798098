"""Joining a cluster within a deadline: Ray itself waits many minutes for one whose GCS (its state) does not answer."""

from __future__ import annotations

import contextlib
import queue
import re
import socket
import threading
import time
from collections.abc import Iterator

from gristmill.cluster.guard import leave_now
from gristmill.shards.errors import UserError, one_line

ANSWER_WITHIN = 10.0  # seconds, before and while Ray joins
_SILENCE = "it accepts connections and is silent"
LOOK_SECONDS = 1.0
CONNECT_SECONDS = 5.0
CODE = 2  # the exit code of a mistake of the user's: most often the address


def check_address(address: str) -> None:
    """Refuse what ``RAY_ADDRESS`` may hold for other programs.

    Raises:
        UserError: it is the address of a dashboard, or of no form that Ray joins.
    """
    dashboard = re.match(r"https?://([^/:]*)", address)
    if dashboard:
        raise UserError(
            f"RAY_ADDRESS={address}: the address of a dashboard, to which jobs are submitted (`gristmill submit "
            f"--address {address}`); expected that of the cluster, such as {dashboard[1] or 'head'}:6379, or none for "
            "a Ray on this machine"
        )
    if "://" not in address and address != "auto" and _place(address) is None:
        raise UserError(f"RAY_ADDRESS={address}: expected host:port, as in head:6379, or auto")


@contextlib.contextmanager
def answering(address: str) -> Iterator[None]:
    """Join a cluster in this context: its GCS must answer, and not fall silent for long while Ray joins.

    ``address`` is that of the GCS, as in ``RAY_ADDRESS``. While Ray joins it cannot be interrupted, so that this
    process is ended if the GCS is silent for too long.

    Raises:
        ConnectionError: nothing answers there, or what answers is no GCS.
        AuthenticationError: of Ray: the GCS knows another token.
    """
    place = _place(address)
    if place is None:
        yield
        return
    _wait(place)
    if not address.startswith("ray://"):
        _greet(f"{place[0]}:{place[1]}")
    joined = threading.Event()
    watch = threading.Thread(target=_watch, args=(address, place, joined), name="joining", daemon=True)
    watch.start()
    try:
        yield
    finally:
        joined.set()


def _place(address: str) -> tuple[str, int] | None:
    """Return the host and port of a GCS; ``None`` for an address that Ray finds, or refuses, by itself."""
    if address == "auto":
        from ray._private.utils import read_ray_address

        address = read_ray_address() or ""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    return (host.strip("[]"), int(port)) if host and port.isdigit() and "/" not in host else None


def answers(place: tuple[str, int], seconds: float = CONNECT_SECONDS) -> bool:
    """Return whether something accepts connections at a host and port, within some seconds."""
    try:
        socket.create_connection(place, seconds).close()
    except OSError:
        return False
    return True


def _wait(place: tuple[str, int]) -> None:
    begun = time.monotonic()
    while not answers(place):
        if time.monotonic() - begun > ANSWER_WITHIN:
            raise ConnectionError(f"nothing answers at {place[0]}:{place[1]}, {ANSWER_WITHIN:g} s long")
        time.sleep(LOOK_SECONDS)


def _greet(place: str) -> None:
    """Wait until a GCS answers: connections are accepted by proxies and by a GCS that hangs, too.

    Ray itself would ask them twenty times, for up to 40 s each.
    """
    from ray.exceptions import RpcError

    end, why = time.monotonic() + ANSWER_WITHIN, _SILENCE
    while (left := end - time.monotonic()) > 0:
        answer: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        threading.Thread(target=_ask, args=(place, answer), name="greeting", daemon=True).start()
        try:
            error = answer.get(timeout=left)
        except queue.Empty:
            break
        if error is None:
            return
        if not isinstance(error, RpcError):
            raise error
        why = one_line(error)
        time.sleep(LOOK_SECONDS)
    raise ConnectionError(f"what is at {place} does not answer as a Ray cluster does, {ANSWER_WITHIN:g} s long: {why}")


def _ask(place: str, answer: queue.SimpleQueue[Exception | None]) -> None:
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # missing in its stub

    try:
        GcsClient(address=place)
    except Exception as error:
        answer.put(error)
    else:
        answer.put(None)


def _watch(address: str, place: tuple[str, int], joined: threading.Event) -> None:
    heard = time.monotonic()
    while not joined.wait(LOOK_SECONDS):
        if answers(place):
            heard = time.monotonic()
        elif time.monotonic() - heard > ANSWER_WITHIN and not joined.is_set():
            said = f"the Ray cluster at RAY_ADDRESS={address} cannot be reached: it ended while this process joined it"
            leave_now(f"gristmill: {said}; is it up?", lambda: None, CODE)
