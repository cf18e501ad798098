"""A cluster that is not there, or goes while it is joined, is told within seconds."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from gristmill.cluster import joining, session
from gristmill.shards.errors import UserError


def test_an_address_where_no_ray_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "ANSWER_WITHIN", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with joining.answering(f"ray://{address}"):
            pass
        silent = pytest.raises(ConnectionError, match=f"{address} does not answer as a Ray .* is silent")
        with silent, joining.answering(address):
            raise AssertionError("it was joined")
    with pytest.raises(ConnectionError, match=f"nothing answers at {address}"), joining.answering(address):
        raise AssertionError("it was joined")


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("http://head:8265", r"the address of a dashboard.*submit --address http://head:8265.*such as head:6379"),
        ("https://ray.example.org/", r"such as ray\.example\.org:6379"),
        ("head", "expected host:port"),
        ("head:port", "expected host:port"),
    ],
)
def test_an_address_for_other_programs_is_refused(monkeypatch: pytest.MonkeyPatch, address: str, sentence: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError, match=sentence):
        session.start(1)


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
        address = f"ray://127.0.0.1:{server.getsockname()[1]}"
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
