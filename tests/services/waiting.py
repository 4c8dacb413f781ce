"""Waiting for a condition, with a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

#: Seconds between two looks at a condition.
_INTERVAL_S = 0.02


def wait_until(condition: Callable[[], object], timeout: float = 10.0, what: str = "") -> None:
    """Look at `condition` until it holds; raise `TimeoutError` after `timeout` seconds.

    A condition may raise `OSError` (a service not up yet): that counts as "not now" and is shown when time is up.
    """
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    last_error: OSError | None = None
    while True:
        try:
            if condition():
                return
        except OSError as error:
            last_error = error
        if time.monotonic() >= deadline:
            name = what or getattr(condition, "__name__", "the condition")
            raise TimeoutError(f"{name} did not hold within {timeout:g} s") from last_error
        pause.wait(_INTERVAL_S)
