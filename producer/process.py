"""This process as a producer: which one it is, and what happens to it at fork and exit.

- What a producer is made of is loaded with the first one, and not with `import provd`: most of it is of no use to a
  program that only imports an instrumented module.
- A fork waits for that: a child born in the middle of an import would inherit locks that nobody releases.
- At exit the sender drains within `exit_drain_s`, by `atexit`, and by `multiprocessing.util.Finalize` in children of
  `multiprocessing`, where `atexit` does not run.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from provd.producer import forks
from provd.producer.border import guarded
from provd.producer.outcome import Terminated

if TYPE_CHECKING:
    from provd.common.settings import Settings
    from provd.producer.producer import Producer
    from provd.producer.termination import Termination

#: `multiprocessing` runs finalizers of higher priority first; ours follows those of queues and managers.
_FINALIZE_PRIORITY = -100

#: The producer, once there is one; `producer` makes it.
current: Producer | None = None
_producer_lock = threading.RLock()
_exit_pid = 0
_termination: Termination | None = None


def producer() -> Producer:
    """The producer of this process, made on first use."""
    global current
    if current is None:
        with _producer_lock:
            if current is None:
                current = _new_producer()
    return current


def _new_producer(settings: Settings | None = None) -> Producer:
    with forks.loading:
        from provd.producer.producer import Producer

        return Producer(settings)


@contextmanager
def replaced_producer(settings: Settings) -> Iterator[Producer]:
    """Be another producer, with these settings, for the length of a block; for tests of instrumented code."""
    global current
    before, current = current, _new_producer(settings)
    mine = current
    try:
        yield mine
    finally:
        mine.close()
        current = before
        if before is not None:
            from provd.producer.rules import use_rules

            use_rules(before.settings)


def flush(timeout: float | None = None) -> bool:
    """Wait until all that was captured is accepted by Redis or the disk.

    Returns False when `timeout` (seconds; by default the exit deadline) ran out first; the messages are then still
    on their way.
    """
    mine = producer()
    mine.settle()
    return mine.sender.flush(mine.settings.exit_drain_s if timeout is None else timeout)


def last_error() -> BaseException | None:
    """The uncaught exception the program ends with: it has been printed, and kept in `sys`, by then."""
    error: BaseException | None = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    return error


def drain_at_exit() -> None:
    """Have `close` run at the end of this process, however its end is organised. Once per process."""
    global _exit_pid
    pid = os.getpid()
    if _exit_pid == pid:
        return
    if _exit_pid == 0:
        atexit.register(_at_exit)  # inherited by forked children
    _exit_pid = pid
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, _at_exit, exitpriority=_FINALIZE_PRIORITY)


def drain_on_sigterm(deadline_s: float) -> None:
    """Have SIGTERM drain; tried again by every sender until it is the main thread that starts one."""
    global _termination
    if _termination is None:
        from provd.producer.termination import Termination

        termination = Termination(leave=_leave, flush=_flush_all, deadline_s=deadline_s)
        if termination.install():
            _termination = termination


def _leave() -> None:
    if current is not None:
        current.close(Terminated())


def _flush_all() -> None:
    if current is not None and current.has_sender:
        flush()


def _at_exit() -> None:
    if current is not None:
        with guarded:
            current.close()
        _keep_interrupt()


def _keep_interrupt() -> None:
    """Let a program that Ctrl-C ended still end by SIGINT, as shells and schedulers expect.

    CPython remembers an uncaught `KeyboardInterrupt` in a flag that every `exec` of source text resets, and importing
    `redis` in the drain does that. An `exec` that is interrupted sets it again.
    """
    if isinstance(last_error(), KeyboardInterrupt) and not hasattr(sys, "ps1"):
        try:
            exec("raise KeyboardInterrupt")  # noqa: S102 - constant text
        except KeyboardInterrupt:
            pass


def _after_fork_in_child() -> None:
    global _producer_lock
    _producer_lock = threading.RLock()
    if current is not None:
        current.reset_after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
