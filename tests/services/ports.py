"""Free TCP ports on the loopback interface."""

from __future__ import annotations

import random
import socket

#: Ports below those that the kernel gives to clients, so that nobody takes one by chance.
_LOW_PORTS = (10_000, 20_000)

_TRIES = 1000


def free_port() -> int:
    """A port that nobody listens on now. Another process may take it first; the server then says so and ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_port_with(offset: int) -> int:
    """A port that nobody listens on now, and neither on the one `offset` above it: the bus of a Redis Cluster."""
    for _ in range(_TRIES):
        port = random.randrange(*_LOW_PORTS)
        try:
            with socket.socket() as one, socket.socket() as other:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + offset))
        except OSError:
            continue
        return port
    raise OSError(f"no two free ports that are {offset} apart")
