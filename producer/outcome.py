"""How a block of the user's code ended, as the record states it (G6).

| raised                                   | status    |
|------------------------------------------|-----------|
| nothing, `SystemExit(0)`, `GeneratorExit`| FINISHED  |
| `KeyboardInterrupt`, `CancelledError`    | CANCELLED |
| `Terminated`                             | CANCELLED |
| anything else                            | ERROR     |
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from provd.common.record import Record, Status
from provd.producer.interrupts import pass_on

#: Characters of an error's message and of its traceback that are kept; the end of a traceback says most.
STDERR_MAX = 16_384
TRACEBACK_MAX = 65_536

#: Innermost frames of a traceback that are kept. A recursion that fails 500 tasks deep formats 500 of them.
FRAMES_MAX = 64

#: Frames of ours at the head of a traceback say nothing about the user's error.
_OWN_FOLDER = os.path.dirname(__file__) + os.sep


class Terminated(BaseException):
    """SIGTERM, as that by which a process ends. Never raised."""


class Outcome(NamedTuple):
    """A status, and the error behind it."""

    status: Status
    stderr: str | None = None
    traceback: str | None = None

    def fields(self) -> Record:
        """The outcome as fields of a record."""
        record: Record = {"status": self.status.value}
        if self.stderr is not None:
            record["stderr"] = self.stderr
        if self.traceback is not None:
            record["traceback"] = self.traceback
        return record


FINISHED = Outcome(Status.FINISHED)

#: Told of every error that ends a block: an iteration that it left before waits to learn what it was.
witnesses: list[Callable[[BaseException], None]] = []


def tell(error: BaseException) -> None:
    """Let the witnesses know that `error` ends a block."""
    for see in tuple(witnesses):
        see(error)


def outcome_of(error: BaseException | None) -> Outcome:
    """What the record says of a block that ended by raising `error`, or by itself."""
    if error is not None and witnesses:
        tell(error)
    if error is None or isinstance(error, GeneratorExit):
        return FINISHED
    if isinstance(error, SystemExit):
        if error.code is None or error.code == 0:
            return FINISHED
        return Outcome(Status.ERROR, _head(f"SystemExit: {_text_of(error.code)}"), _traceback_of(error))
    if isinstance(error, Terminated):
        return Outcome(Status.CANCELLED, "ended by SIGTERM")
    if isinstance(error, KeyboardInterrupt) or _is_cancellation(error):
        return Outcome(Status.CANCELLED, type(error).__name__)
    return Outcome(Status.ERROR, _message_of(error), _traceback_of(error))


def _is_cancellation(error: BaseException) -> bool:
    # By name: importing asyncio to compare with its class would cost every program 40 ms.
    kind = type(error)
    return kind.__name__ == "CancelledError" and kind.__module__.partition(".")[0] in (
        "asyncio",
        "concurrent",
    )


def _text_of(value: object) -> str:
    """`str(value)`, which is the user's code and may itself raise."""
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - a user's __str__ may raise anything
        pass_on(error)
        return f"<str() raised {type(error).__name__}>"


def _message_of(error: BaseException) -> str:
    text = _text_of(error)
    name = type(error).__name__
    return _head(f"{name}: {text}" if text else name)


def _traceback_of(error: BaseException) -> str:
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_OWN_FOLDER):
        frames = frames.tb_next
    try:
        import traceback  # fails in a finalizer, once the interpreter is going down

        text = "".join(traceback.format_exception(type(error), error, frames, limit=-FRAMES_MAX))
    except Exception as raised:  # noqa: BLE001 - formatting calls the user's __str__ and reads the user's files
        pass_on(raised)
        return f"<the traceback cannot be formatted: {type(raised).__name__}>"
    return text if len(text) <= TRACEBACK_MAX else "…" + tail_of(text, TRACEBACK_MAX - 1)


# A cut through a credential would hide what it is: mask first. Whole texts are masked when they are packed.


def tail_of(text: str, room: int) -> str:
    """The end of what a program wrote."""
    return text if len(text) <= room else _masked(text[-room - _edge() :])[-room:]


def _head(text: str) -> str:
    room = STDERR_MAX
    return text if len(text) <= room else _masked(text[: room + _edge()])[:room]


def _edge() -> int:
    from provd.producer.secrets import EDGE  # rare: there is more text than a record keeps

    return EDGE


def _masked(text: str) -> str:
    from provd.producer.rules import current_rules

    return current_rules().secrets.output(text)
