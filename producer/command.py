"""Running any command as a recorded workflow: `provd run`.

- The command sees our standard streams, its own exit status reaches our caller, and signals sent to us reach it.
- It learns of the workflow by environment, so that instrumented programs below it join.
- A command that a signal ended ends us by the same signal, once the record is on its way.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from provd.common.record import Status
from provd.producer.code import read_code
from provd.producer.outcome import FINISHED, Outcome
from provd.producer.process import producer
from provd.producer.workflow import Workflow

#: What a shell answers for a command that is not there, and for one that cannot be run.
NOT_FOUND = 127
NOT_EXECUTABLE = 126

#: Sent on to the command. SIGINT is not: a terminal sends it to both.
_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)

_INTERRUPTS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


@dataclass(frozen=True, slots=True)
class CommandEnd:
    """How a command ended: its exit status, or the signal that ended it; and why it never began, if so."""

    status: int
    signal_number: int | None = None
    failure: str | None = None


def run_command(
    argv: Sequence[str], *, name: str | None, workflow_id: str | None, campaign_id: str | None
) -> CommandEnd:
    """Run a command to its end inside a workflow. Raises `InvalidId` for an id that cannot be one."""
    workflow = Workflow(name or os.path.basename(argv[0]), workflow_id=workflow_id, campaign_id=campaign_id)
    workflow.facts = {"argv": list(argv), "code": _code_of(argv)}
    workflow.start()
    end = _run(argv)
    if end.failure is None:
        workflow.facts["custom_metadata"] = {"exit_status": end.status}
    workflow.end(_outcome_of(end))
    producer().close()
    return end


def die_by(signal_number: int) -> None:
    """End this process as the command ended."""
    with suppress(OSError):  # SIGKILL and SIGSTOP have their default action, and let nobody set it
        signal.signal(signal_number, signal.SIG_DFL)
    os.kill(os.getpid(), signal_number)


def _run(argv: Sequence[str]) -> CommandEnd:
    with _forwarding() as forwarding:
        try:
            child = subprocess.Popen(argv)
        except FileNotFoundError:
            return CommandEnd(NOT_FOUND, failure=f"{argv[0]}: command not found")
        except OSError as error:
            return CommandEnd(NOT_EXECUTABLE, failure=f"{argv[0]}: {error.strerror}")
        forwarding.to(child)
        status = child.wait()
    return CommandEnd(128 - status, signal_number=-status) if status < 0 else CommandEnd(status)


class _Forwarding:
    """Sends signals on to the command; those that come before there is one are kept for it."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._waiting: list[int] = []

    def __call__(self, number: int, _frame: Any) -> None:
        if self._child is None:
            self._waiting.append(number)
        else:
            self._child.send_signal(number)

    def to(self, child: subprocess.Popen[bytes]) -> None:
        """There is a command now."""
        self._child = child
        for number in self._waiting:
            child.send_signal(number)


@contextmanager
def _forwarding() -> Iterator[_Forwarding]:
    forwarding = _Forwarding()
    before = {number: signal.signal(number, forwarding) for number in _FORWARDED}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield forwarding
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _outcome_of(end: CommandEnd) -> Outcome:
    if end.failure is not None:
        return Outcome(Status.ERROR, end.failure)
    if end.signal_number is not None:
        status = Status.CANCELLED if end.signal_number in _INTERRUPTS else Status.ERROR
        return Outcome(status, f"ended by {signal.Signals(end.signal_number).name}")
    return FINISHED if end.status == 0 else Outcome(Status.ERROR, f"exit status {end.status}")


def _code_of(argv: Sequence[str]) -> dict[str, Any]:
    """The first argument that is a file is the code: `python train.py`, `./sim`."""
    for argument in [*argv[1:2], argv[0]]:
        if os.path.isfile(argument):
            return read_code(argument)
    return {}
