"""A TCP proxy that makes a network bad: slow, silent, or cut in the middle of a reply.

It stands between a client and a real server of this machine, and changes when bytes arrive and whether they do,
never what they are.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable

#: Bytes moved at a time; a larger reply comes in several pieces.
_PIECE = 65_536

#: Closing with this sends a reset instead of an orderly end.
_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Forwards connections to one server. All its effects may be changed while connections are open."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._flowing = threading.Event()
        self._flowing.set()
        self._delay_s = 0.0
        self._cut_every = 0
        self._pieces = 0
        #: Connections that were cut so far.
        self.cuts = 0
        self._thread = threading.Thread(target=self._accept, name="proxy", daemon=True)

    @property
    def port(self) -> int:
        """The port that clients are given, on 127.0.0.1."""
        port: int = self._listener.getsockname()[1]
        return port

    def start(self) -> None:
        """Begin to accept."""
        self._thread.start()

    def close(self) -> None:
        """Drop every connection and end."""
        self._ended.set()
        self._flowing.set()
        # Closing alone does not wake the thread that accepts.
        self._listener.shutdown(socket.SHUT_RDWR)
        self.drop()
        self._thread.join(30)
        self._listener.close()
        assert not self._thread.is_alive()

    def slow(self, seconds: float) -> None:
        """Hold every piece of every reply back for so long; 0 ends it."""
        self._delay_s = seconds

    def hang(self) -> None:
        """Deliver nothing more; connections stay open."""
        self._flowing.clear()

    def resume(self) -> None:
        """Undo `hang`: what was held back is delivered."""
        self._flowing.set()

    def cut_every(self, pieces: int) -> None:
        """From now on reset a connection in the middle of every so-many-th piece of a reply; 0 ends it."""
        with self._lock:
            self._cut_every, self._pieces = pieces, 0

    def drop(self) -> None:
        """Reset every open connection."""
        with self._lock:
            victims = list(self._open)
        for victim in victims:
            self._reset(victim)

    # --- forwarding ---

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # it was shut down
            try:
                server = socket.create_connection(self._target, timeout=5)
            except OSError:
                self._reset(client)
                continue
            server.settimeout(None)
            with self._lock:
                self._open |= {client, server}
            if self._ended.is_set():  # `close` may have dropped what was open before these were
                self._reset(client)
                self._reset(server)
                return
            for source, sink, tampers in ((client, server, False), (server, client, True)):
                threading.Thread(
                    target=self._forward, args=(source, sink, tampers), name="proxy", daemon=True
                ).start()

    def _forward(self, source: socket.socket, sink: socket.socket, tampers: bool) -> None:
        try:
            while piece := source.recv(_PIECE):
                if tampers and self._delay_s:
                    self._ended.wait(self._delay_s)
                self._flowing.wait()
                if tampers and self._is_cut():
                    sink.sendall(piece[: len(piece) // 2])
                    break
                sink.sendall(piece)
        except OSError:
            pass  # the other end is gone
        for end in (source, sink):
            self._reset(end)

    def _is_cut(self) -> bool:
        with self._lock:
            self._pieces += 1
            if not self._cut_every or self._pieces % self._cut_every:
                return False
            self.cuts += 1
            return True

    def _reset(self, end: socket.socket) -> None:
        with self._lock:
            self._open.discard(end)
        steps: tuple[Callable[[], object], ...] = (
            lambda: end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET),
            lambda: end.shutdown(socket.SHUT_RDWR),  # wakes the thread that reads from it
            end.close,
        )
        for step in steps:
            try:
                step()
            except OSError:  # it is closed already
                continue
