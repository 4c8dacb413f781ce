"""How a block of the user's code ended, as the record states it (G6).

| raised                                   | status    |
|------------------------------------------|-----------|
| nothing, `SystemExit(0)`, `GeneratorExit`| FINISHED  |
| `KeyboardInterrupt`, `CancelledError`    | CANCELLED |
| anything else                            | ERROR     |
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from provd.common.record import Record, Status

#: Characters of an error's message and of its traceback that are kept; the end of a traceback says most.
STDERR_MAX = 16_384
TRACEBACK_MAX = 65_536


#: Frames of ours at the head of a traceback say nothing about the user's error.
_OWN_FOLDER = os.path.dirname(__file__) + os.sep


@dataclass(frozen=True, slots=True)
class Outcome:
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


def outcome_of(error: BaseException | None) -> Outcome:
    """What the record says of a block that ended by raising `error`, or by itself."""
    if error is None or isinstance(error, GeneratorExit):
        return FINISHED
    if isinstance(error, SystemExit):
        if error.code is None or error.code == 0:
            return FINISHED
        return Outcome(Status.ERROR, f"SystemExit: {_text_of(error.code)}"[:STDERR_MAX])
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
        return f"<str() raised {type(error).__name__}>"


def _message_of(error: BaseException) -> str:
    text = _text_of(error)
    name = type(error).__name__
    return (f"{name}: {text}" if text else name)[:STDERR_MAX]


def _traceback_of(error: BaseException) -> str:
    import traceback

    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_OWN_FOLDER):
        frames = frames.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, frames))
    except Exception as raised:  # noqa: BLE001 - formatting calls the user's __str__ and reads the user's files
        return f"<the traceback cannot be formatted: {type(raised).__name__}>"
    return text if len(text) <= TRACEBACK_MAX else "…" + text[1 - TRACEBACK_MAX :]
