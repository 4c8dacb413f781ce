"""`--follow`: look again and again, through outages, until Ctrl-C."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NoReturn

from provd.common import clock
from provd.common.errors import StoreUnavailable

#: Seconds between two looks.
INTERVAL_S = 2.0

#: A look that takes long is made less often: this many times as long is waited.
_REST = 3


def follow(look: Callable[[], None], interval: float) -> NoReturn:
    """Call `look` for ever; that the store went away, and that it is back, is said once each on stderr."""
    from provd.cli import output

    pause = threading.Event()
    wait = interval
    away = False
    while True:
        pause.wait(wait)
        began = clock.monotonic()
        try:
            look()
        except StoreUnavailable as error:
            if not away:
                output.say(f"{error}; waiting for it")
            away = True
        else:
            if away:
                output.say("the store answers again")
            away = False
        wait = max(interval, _REST * (clock.monotonic() - began))
