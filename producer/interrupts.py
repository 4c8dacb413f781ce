"""Telling the program's own exceptions from those of what we look at.

Where a value's own methods are called, whatever they raise is caught. A signal handler of the program (a time limit by
`signal.alarm`) may raise at that very moment, and that exception is the program's: swallowed, its time limit would
never be noticed.
"""

from __future__ import annotations

import signal
from types import CodeType
from typing import Any


def pass_on(error: BaseException) -> None:
    """Raise `error` again if a signal handler of the program raised it; called where it was caught."""
    handlers = _handler_codes()
    traceback = error.__traceback__
    while handlers and traceback is not None:
        if traceback.tb_frame.f_code in handlers:
            raise error
        traceback = traceback.tb_next


def _handler_codes() -> set[CodeType]:
    codes = (_code_of(signal.getsignal(number)) for number in signal.valid_signals())
    return {code for code in codes if code is not None}


def _code_of(handler: Any) -> CodeType | None:
    if not callable(handler) or isinstance(handler, int):
        return None
    function = handler if hasattr(handler, "__code__") else vars(type(handler)).get("__call__")
    code = getattr(function, "__code__", None)
    return code if isinstance(code, CodeType) else None
