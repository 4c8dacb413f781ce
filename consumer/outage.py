"""A service that is away: wait, and say so once.

- Nothing ends because a service is away. The pauses grow to a few seconds, and stay short enough to be back in time.
- A service that answers and then refuses again is still the same outage: it is over when work has been done.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable

from provd.common.errors import ProvdError

log = logging.getLogger("provd.consumer")

_FIRST_PAUSE_S = 0.1

#: Seconds within which everyone who waits for a service asks for it again.
LONGEST_PAUSE_S = 5.0


class Outage:
    """One service's failures since it last worked."""

    def __init__(self, service: str, meanwhile: str) -> None:
        """`meanwhile` says what happens to the data."""
        self._service = service
        self._meanwhile = meanwhile
        self._failures = 0
        self._said = ""

    def wait(
        self, error: ProvdError, stop: threading.Event, *, probe: Callable[[], None], each: Callable[[], None]
    ) -> None:
        """Return when `probe` no longer raises a `ProvdError`, or when stopped; `each` is called between tries."""
        while not stop.is_set():
            self._say(error)
            each()
            pause = min(_FIRST_PAUSE_S * 2**self._failures, LONGEST_PAUSE_S)
            self._failures = min(self._failures + 1, 16)
            # A thousand consumers must not come back in step.
            stop.wait(pause * random.uniform(0.7, 1.0))
            try:
                probe()
            except ProvdError as again:
                error = again
                continue
            return

    def over(self) -> None:
        """The service has worked."""
        if self._failures:
            log.info("%s is back", self._service)
            self._failures = 0
            self._said = ""

    def _say(self, error: ProvdError) -> None:
        if str(error) != self._said and not self._said:
            log.warning("%s is away: %s; %s", self._service, error, self._meanwhile)
        elif str(error) != self._said:
            log.info("%s is still away: %s", self._service, error)
        self._said = str(error)
