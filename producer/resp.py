"""A client for one plain Redis, of what a producer says to it: `redis-py` alone takes longer to start than all of provd.

Importing `redis` reads 240 modules and takes half of the time from the start of a script to its first message in Redis,
most of it for `redis.asyncio`, which its `__init__` always imports. What is not plain (TLS, Sentinel, Cluster, options in
the URL) is left to it.

- One connection, made at the first command, and made again where it was lost between two commands.
- It never sends a command twice: after an error in the middle of one, what was asked may have happened.
- No wait is longer than the timeout.
- RESP2, the protocol of every Redis from 1.2 on. Not for use by two threads at once.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - the first look-up of a host would import it, perhaps at the moment of a fork
import select
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import IO, Any, NamedTuple
from urllib.parse import unquote, urlsplit

_PORT = 6379

#: Bytes of a line and of a value, items of a list, and lists inside one another, that a Redis may reply with. What claims
#: more is none, and does not get the memory for it.
_LINE_MAX = 64 << 10
_VALUE_MAX = 64 << 20
_ITEMS_MAX = 64 << 10
_DEPTH_MAX = 8

_HUNG_UP = "Connection closed by server."


class RedisRefused(Exception):
    """An error that Redis replied with; the message is its own."""


class Address(NamedTuple):
    """A plain Redis: a host and port, or the path of a socket."""

    host: str
    port: int
    path: str
    user: str
    password: str
    database: int

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


def plain_address(url: str) -> Address | None:
    """Where this URL leads; None for what is not plain, or is not written as it should be."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORT
    except ValueError:
        return None
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if parts.query or parts.fragment or (user and not password):
        return None
    if parts.scheme == "unix":
        path = unquote(parts.path)
        return Address("", 0, path, user, password, 0) if path and not parts.hostname else None
    database = parts.path.strip("/") or "0"
    if parts.scheme != "redis" or not (database.isascii() and database.isdecimal()):
        return None
    return Address(unquote(parts.hostname or "localhost"), port, "", user, password, int(database))


class PlainRedis:
    """The connection to a plain Redis, by the names that `redis.Redis` has for what it does.

    Raises `RedisRefused`, and `OSError` when the server is away, silent, or not a Redis.
    """

    def __init__(self, address: Address, timeout_s: float, greet: Callable[[PlainRedis], None]) -> None:
        """`greet` is called with each new connection, and calls its `on_connect`."""
        self._address = address
        self._timeout_s = timeout_s
        self._greet = greet
        self._socket: socket.socket | None = None
        self._replies: IO[bytes] | None = None

    def __del__(self) -> None:
        self.disconnect()  # a sender ends with its process, and a forked child drops that of its parent

    # --- what is said ---

    def execute_command(self, *command: Any) -> Any:
        """Its reply."""
        return self.execute_commands([command])[0]

    def execute_commands(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """The replies to commands that are sent together; raises the first error among them when all are read."""
        self._connect()
        replies = self._exchange(commands)
        for reply in replies:
            if isinstance(reply, RedisRefused):
                raise reply
        return replies

    def get(self, key: str) -> Any:
        """A value, None without one."""
        return self.execute_command("GET", key)

    def set(self, key: str, value: Any, *, nx: bool = False) -> Any:
        """Set a value; with `nx` only where there is none."""
        return self.execute_command("SET", key, value, *(("NX",) if nx else ()))

    def exists(self, key: str) -> int:
        """1 or 0."""
        return int(self.execute_command("EXISTS", key))

    def eval(self, script: str, keys: int, *arguments: Any) -> Any:
        """What a script returns."""
        return self.execute_command("EVAL", script, keys, *arguments)

    def time(self) -> tuple[int, int]:
        """Its clock: seconds and microseconds."""
        seconds, microseconds = self.execute_command("TIME")
        return int(seconds), int(microseconds)

    def info(self, section: str) -> dict[str, str]:
        """The facts of one section, as text."""
        lines = self.execute_command("INFO", section).decode("utf-8", "replace").splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))

    def close(self) -> None:
        """Close the connection; the next command makes another."""
        self.disconnect()

    # --- the connection ---

    def on_connect(self) -> None:
        """Log in, and choose the database."""
        address = self._address
        commands: list[tuple[Any, ...]] = []
        if address.password:
            commands.append(("AUTH", *((address.user,) if address.user else ()), address.password))
        if address.database:
            commands.append(("SELECT", address.database))
        for reply in self._exchange(commands):
            if isinstance(reply, RedisRefused):
                raise reply

    def disconnect(self) -> None:
        """Close it. Without a `shutdown`: the connection of a forked child's parent goes on."""
        replies, self._replies = self._replies, None
        connection, self._socket = self._socket, None
        if replies is not None:
            replies.close()
        if connection is not None:
            connection.close()

    def _connect(self) -> None:
        if self._socket is not None and self._was_lost(self._socket):
            self.disconnect()
        if self._socket is not None:
            return
        with ExitStack() as unless_greeted:
            unless_greeted.callback(self.disconnect)
            self._socket = self._open()
            self._replies = self._socket.makefile("rb")
            self._greet(self)
            unless_greeted.pop_all()

    def _open(self) -> socket.socket:
        address = self._address
        try:
            with ExitStack() as unless_connected:
                if address.path:
                    connection = unless_connected.enter_context(socket.socket(socket.AF_UNIX))
                    connection.settimeout(self._timeout_s)
                    connection.connect(address.path)
                else:
                    connection = unless_connected.enter_context(
                        socket.create_connection((address.host, address.port), self._timeout_s)
                    )
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                unless_connected.pop_all()
            return connection
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConnectionError(f"Error {error.errno} connecting to {address}. {reason}.") from error

    @staticmethod
    def _was_lost(connection: socket.socket) -> bool:
        """Whether the server has hung up: between two commands there is nothing to read."""
        look = select.poll()
        look.register(connection, select.POLLIN)
        return bool(look.poll(0))

    def _exchange(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send commands and read a reply for each. After an error in between, the two would not belong together."""
        connection, replies = self._socket, self._replies
        if connection is None or replies is None:
            raise ConnectionError("the connection is closed")
        try:
            with ExitStack() as unless_answered:
                unless_answered.callback(self.disconnect)
                connection.sendall(b"".join(part for command in commands for part in _packed(command)))
                answers = [_read(replies) for _ in commands]
                unless_answered.pop_all()
            return answers
        except TimeoutError:
            raise TimeoutError(f"Timeout reading from {self._address}") from None


def _packed(command: Sequence[Any]) -> list[bytes]:
    parts = [b"*%d\r\n" % len(command)]
    for item in command:
        raw = item if isinstance(item, bytes) else str(item).encode()
        parts += [b"$%d\r\n" % len(raw), raw, b"\r\n"]
    return parts


def _read(replies: IO[bytes], depth: int = _DEPTH_MAX) -> Any:
    """One reply; an error among them is an exception, as a value."""
    line = replies.readline(_LINE_MAX)
    if not line.endswith(b"\r\n"):
        raise _no_redis(line) if len(line) == _LINE_MAX else ConnectionError(_HUNG_UP)
    kind, rest = line[:1], line[1:-2]
    if kind == b"+":
        return rest
    if kind == b"-":
        return RedisRefused(rest.decode("utf-8", "replace"))
    try:
        number = int(rest)
    except ValueError:
        raise _no_redis(line) from None
    if kind == b":":
        return number
    if kind == b"$" and number <= _VALUE_MAX:
        return _read_bytes(replies, number) if number >= 0 else None
    if kind == b"*" and number <= _ITEMS_MAX and depth:
        return [_read(replies, depth - 1) for _ in range(number)] if number >= 0 else None
    raise _no_redis(line)


def _read_bytes(replies: IO[bytes], length: int) -> bytes:
    raw = replies.read(length + 2)
    if len(raw) != length + 2:
        raise ConnectionError(_HUNG_UP)
    return raw[:-2]


def _no_redis(line: bytes) -> ConnectionError:
    return ConnectionError(f"not a reply of Redis: {line[:40]!r}")
