"""Free TCP ports on the loopback interface."""

from __future__ import annotations

import random
import socket

#: Ports below those that the kernel gives to clients, so that nobody takes one by chance.
_LOW_PORTS = (10_000, 20_000)

_TRIES = 1000

#: Ports that were given before: a server that is yet to be started does not listen on its own.
_given: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on now, given once. Another process may take it; the server then says so and ends."""
    for _ in range(_TRIES):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in _given:
            _given.add(port)
            return port
    raise OSError("no free port that was not given before")


def free_port_with(offset: int) -> int:
    """A port that nobody listens on now, and neither on the one `offset` above it: the bus of a Redis Cluster."""
    for _ in range(_TRIES):
        port = random.randrange(*_LOW_PORTS)
        if _given & {port, port + offset}:
            continue
        try:
            with socket.socket() as one, socket.socket() as other:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + offset))
        except OSError:
            continue
        _given.update((port, port + offset))
        return port
    raise OSError(f"no two free ports that are {offset} apart")
