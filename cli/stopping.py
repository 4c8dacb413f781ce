"""SIGTERM and Ctrl-C as a wish to end: of commands that finish what they have in hand, and of all others."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from provd.cli.exits import TERMINATED
from provd.common import clock

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

#: Seconds within which a second SIGTERM is the same wish.
_TWICE_S = 5.0


@contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Have SIGTERM and Ctrl-C call `stop`, in the main thread; the former handlers come back at the end."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop()

    former = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Have SIGTERM end the command as Ctrl-C does, by an exception: what it has begun to write is taken away.

    Who ignores SIGTERM goes on ignoring it.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _sigterm)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def is_terminated() -> bool:
    """Whether SIGTERM has come, whatever became of the exception: SQLite, for one, tells its own instead."""
    return _sigterm.came_at is not None


class _Sigterm:
    """Raises, and again when it comes later. `timeout` and schedulers send it twice at once, to the process and to its
    group: the second must not cut the cleaning short.
    """

    came_at: float | None = None

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        now = clock.monotonic()
        if self.came_at is None or now - self.came_at > _TWICE_S:
            self.came_at = now
            raise SystemExit(TERMINATED)


_sigterm = _Sigterm()
