"""Ports for the servers that tests start."""

from __future__ import annotations

import random
import socket

# Below those that the system gives to connections: one of them may be taken before its server has started.
_PORTS = range(20_000, 32_768)


def free_ports(number: int, partner: int = 0) -> list[int]:
    """Return so many ports that are free, and whose ``partner`` so many above is free too."""
    ports: list[int] = []
    while len(ports) < number:
        port = random.choice(range(_PORTS.start, _PORTS.stop - partner))
        if port not in ports and all(map(_free, {port, port + partner})):
            ports.append(port)
    return ports


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
