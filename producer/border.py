"""The border between provd and the traced program.

- What goes wrong inside provd ends here: it costs a record, is told once, and never reaches the program (G1).
- What a signal handler of the program raised while provd was at work is the program's, and goes on to it.
- These are the only catch-all handlers around code of ours, beside the top level of its threads.
"""

from __future__ import annotations

from types import TracebackType

from provd.producer.interrupts import pass_on
from provd.producer.warning import warn_once


def swallow(error: Exception) -> None:
    """Tell of an error of provd's own, once; to be called where it was caught."""
    pass_on(error)
    warn_once(
        "internal",
        f"an error of provd's own cost a record ({type(error).__name__}: {error}); please report it",
    )


class Guard:
    """`with guarded:` around code of ours that is not on the path of every call."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if isinstance(error, Exception):
            swallow(error)
            return True
        return False


guarded = Guard()
