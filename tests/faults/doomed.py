"""A consumer that ends itself with SIGKILL at a named point of its work: `python doomed.py SETTINGS SLOTS POINT`.

It is provd's own consumer, put together as the command does it. What it is given are a store and a broker that hand
everything on to the real ones and kill the process on the way; where the point lies at a system call of the spool,
that call does it. The product has no hook for any of this.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from provd.common.settings import Settings
from provd.consumer.broker import Broker
from provd.consumer.identity import Identity
from provd.consumer.service import Consumer
from provd.store.open import open_store

#: Points on a frame's way into the store, in their order.
STORE_POINTS = (
    "after the read",
    "in the middle of the write",
    "while the store writes",
    "between the write and the quarantine",
    "between the write and the ledger",
    "between the ledger and the acknowledgement",
    "after the acknowledgement",
)

#: Points on a frame's way into the consumer's own spool.
SPOOL_POINTS = (
    "in the middle of a spool write",
    "between the spool write and fsync",
    "between fsync and the acknowledgement",
    "after a spooled frame's acknowledgement",
)

#: Points on the way of the spool into the store.
BRINGING_POINTS = (
    "in the middle of bringing back",
    "between the write of what is brought back and the ledger",
    "between the ledger and the removal of the spool file",
)


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL returns")


class _Before:
    """Hands everything on to `inner`, and calls `fatal` instead of the method of that name."""

    def __init__(self, inner: Any, **fatal: Callable[..., Any]) -> None:
        self._inner = inner
        self._fatal = fatal

    def __getattr__(self, name: str) -> Any:
        return self._fatal.get(name) or getattr(self._inner, name)


class DoomedBroker(Broker):
    """The real broker; the process ends before or after the first script that acknowledges."""

    before_acknowledging = False
    after_acknowledging = False

    def run(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        acknowledges = any(_acknowledges(command) for command in commands)
        if acknowledges and self.before_acknowledging:
            _die()
        replies = super().run(commands)
        if acknowledges and self.after_acknowledging:
            _die()
        return replies

    def ask(self, *command: Any) -> Any:
        acknowledges = _acknowledges(command)
        if acknowledges and self.before_acknowledging:
            _die()
        reply = super().ask(*command)
        if acknowledges and self.after_acknowledging:
            _die()
        return reply


def _acknowledges(command: Sequence[Any]) -> bool:
    return command[0] == "EVAL" and "XACK" in str(command[1])


def _store(store: Any, point: str) -> Any:
    def half(messages: Sequence[Any], **named: Any) -> None:
        store.write(messages[: len(messages) // 2], **named)
        _die()

    def soon(messages: Sequence[Any], **named: Any) -> None:
        threading.Timer(0.03, _die).start()
        store.write(messages, **named)
        threading.Event().wait()  # a store that was quicker than the timer

    def die(*_: Any, **__: Any) -> NoReturn:
        _die()

    fatal: dict[str, dict[str, Callable[..., Any]]] = {
        "after the read": {"write": die},
        "in the middle of the write": {"write": half},
        "while the store writes": {"write": soon},
        "between the write and the quarantine": {"add_quarantined": die},
        "between the write and the ledger": {"add_stored": die},
        "in the middle of bringing back": {"write": half},
        "between the write of what is brought back and the ledger": {"add_stored": die},
    }
    return _Before(store, **fatal.get(point, {}))


def _doom_system_calls(point: str) -> None:
    write = os.write

    def torn(file: int, data: bytes) -> int:
        if len(data) < 1000:  # a file's header
            return write(file, data)
        write(file, data[: len(data) * 2 // 3])
        _die()

    def die(_: Any) -> None:
        _die()

    def unlink(path: Any, *_: Any, **__: Any) -> None:
        if ".jsonl" in str(path):
            _die()

    if point == "in the middle of a spool write":
        os.write = torn  # type: ignore[assignment]
    elif point == "between the spool write and fsync":
        os.fsync = die  # type: ignore[assignment]
    elif point == "between the ledger and the removal of the spool file":
        os.unlink = unlink


def main() -> None:
    """Consume until the point is reached."""
    settings, slots, point = Settings(**json.loads(sys.argv[1])), Path(sys.argv[2]), sys.argv[3]
    _doom_system_calls(point)
    broker = DoomedBroker(settings.resolved_broker_url(), connect_timeout_s=1)
    broker.before_acknowledging = point in (
        "between the ledger and the acknowledgement",
        "between fsync and the acknowledgement",
    )
    broker.after_acknowledging = point in (
        "after the acknowledgement",
        "after a spooled frame's acknowledgement",
    )
    store = _store(open_store(settings.resolved_store_url(), timeout_s=1), point)
    Consumer(settings, broker=broker, store=store, identity=Identity(slots, hostname="head")).run()


if __name__ == "__main__":
    main()
