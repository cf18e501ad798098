"""Starting a Ray on a busy machine, where its processes take longer to start than Ray waits for them."""

from __future__ import annotations

import contextlib
import functools
import socket
from collections.abc import Iterator

# Options of `ray start` and parameters of Ray for the ports of a node's agents. A raylet waits for each agent that was
# given none to choose one, and aborts after 15 s (ray-project/ray#65983).
AGENTS = {
    "--dashboard-agent-grpc-port": "metrics_agent_port",
    "--dashboard-agent-listen-port": "dashboard_agent_listen_port",
    "--metrics-export-port": "metrics_export_port",
    "--runtime-env-agent-port": "runtime_env_agent_port",
}


def too_slow(error: BaseException) -> bool:
    """Return whether a local Ray did not start because its processes were not there in time."""
    return "timed out during startup" in str(error)  # has no class of its own


@contextlib.contextmanager
def agents_have_ports() -> Iterator[dict[str, int]]:
    """Give the agents of a Ray that ``ray.init`` starts in this context their ports, as only ``ray start`` can.

    Yields the parameters that ``ray.init`` itself has.
    """
    from ray._private import parameter

    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in AGENTS]
        ports = dict(zip(AGENTS.values(), (probe.getsockname()[1] for probe in probes), strict=True))
    export = ports.pop("metrics_export_port")
    before = parameter.RayParams
    parameter.RayParams = functools.partial(before, **ports)  # type: ignore[misc,assignment]
    try:
        yield {"_metrics_export_port": export}
    finally:
        parameter.RayParams = before  # type: ignore[misc]
