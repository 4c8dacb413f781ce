"""SIGTERM, for programs that ask for it by `drain_on_sigterm`: send or spool what is left, then end as they would have.

- Installed in the main thread, once per process and its children, and never over SIG_IGN: who ignores SIGTERM goes on.
- A handler that the program had before is called after the drain, and the program goes on as it says. Without one the
  system's default action follows: the exit status is that of SIGTERM, and nothing of the program runs any more.
- Python runs handlers in the main thread, between two steps of whatever is there. Where that is our own code, which
  may be holding what the drain needs, the signal is given again until it is not, within the drain's deadline.
- While the main thread is inside C code no handler runs, this one neither: the program lives on until C returns.
- Any more of them during the drain change nothing: it ends by its deadline.
"""

from __future__ import annotations

import _thread
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

from provd.common import clock
from provd.producer.border import guarded

#: Modules that hold locks, and call no code of the program while they do.
_LOCKING = frozenset(
    os.path.join(os.path.dirname(__file__), f"{name}.py")
    for name in "broker channel durable journal process producer receipts sender shipping".split()  # noqa: SIM905
)

#: Seconds between two looks whether the main thread has left our own code.
_AGAIN_S = 0.005


class Termination:
    """What SIGTERM does in this process."""

    def __init__(self, *, leave: Callable[[], None], flush: Callable[[], None], deadline_s: float) -> None:
        """`leave` says goodbye and drains, `flush` drains alone, where the program goes on."""
        self._leave = leave
        self._flush = flush
        self._deadline_s = deadline_s
        self._before: Callable[[int, FrameType | None], object] | None = None
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._draining = False  # a thread may have forked while the main thread drained
        self._waiting_since: float | None = None
        #: Held while the signal is given again, so that none comes after the drain.
        self._asking = _thread.allocate_lock()
        #: Never free: to wait for it is to wait for the time that is given.
        self._pause = _thread.allocate_lock()
        self._pause.acquire()

    def install(self) -> bool:
        """Take SIGTERM over; False where it is not ours to take."""
        if threading.current_thread() is not threading.main_thread():
            return False
        before = signal.getsignal(signal.SIGTERM)
        if before is None or before == signal.SIG_IGN:
            return False
        if callable(before) and not isinstance(before, signal.Handlers):
            self._before = before
        signal.signal(signal.SIGTERM, self._handle)
        return True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._pid != os.getpid():
            self._reset()
        if self._draining:
            return
        if _is_ours(frame) and not self._is_late() and self._ask_again():
            return
        self._draining = True
        try:
            with self._asking:
                self._waiting_since = None
            with guarded:
                (self._leave if self._before is None else self._flush)()
        finally:
            self._draining = False
        if self._before is None:
            _die()
        else:
            self._before(number, frame)

    def _is_late(self) -> bool:
        return self._waiting_since is not None and clock.monotonic() - self._waiting_since >= self._deadline_s

    def _ask_again(self) -> bool:
        if self._waiting_since is None:
            self._waiting_since = clock.monotonic()
            try:
                # Not by `threading`: the main thread may be in the middle of that too.
                _thread.start_new_thread(self._repeat, ())
            except RuntimeError:
                return False
        return True

    def _repeat(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        main = threading.main_thread().ident
        while main is not None:
            self._pause.acquire(timeout=_AGAIN_S)
            with self._asking:
                if self._waiting_since is None:
                    return
                signal.pthread_kill(main, signal.SIGTERM)


def _is_ours(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename in _LOCKING:
            return True
        frame = frame.f_back
    return False


def _die() -> None:
    """End by the default action of SIGTERM, as the program would have."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    os.kill(os.getpid(), signal.SIGTERM)
