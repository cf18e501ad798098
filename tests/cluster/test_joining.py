"""A cluster that is not there, or goes while it is joined, is told within seconds."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from gristmill.cluster import joining


def test_an_address_where_nothing_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "ANSWER_WITHIN", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with joining.answering(address):
            pass
    with pytest.raises(ConnectionError, match=f"nothing answers at {address}"), joining.answering(address):
        raise AssertionError("it was joined")


def test_a_cluster_that_ends_while_it_is_joined() -> None:
    code = """
import sys, time
from gristmill.cluster import joining
joining.ANSWER_WITHIN = joining.LOOK_SECONDS = 0.2
with joining.answering(sys.argv[1]):
    print("joins", flush=True)
    time.sleep(100)
"""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        command = [sys.executable, "-c", code, address]
        driver = subprocess.Popen(command, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert driver.stdout is not None
        assert driver.stdout.readline() == "joins\n"
    _, said = driver.communicate(timeout=60)
    assert said == (
        f"gristmill: the Ray cluster at RAY_ADDRESS={address} cannot be reached: it ended while this process joined "
        "it; is it up?\n"
    )
    assert driver.returncode == 2
