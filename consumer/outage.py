"""A service that is away: wait, and say so once.

- Nothing ends because a service is away. The pauses grow to a few seconds, and stay short enough to be back in time.
- A service that answers and then refuses again is still the same outage: it is over when work has been done.
- What was in hand is let go at once: an error's traceback keeps alive what each of its functions had, and a driver may
  keep the error for as long as its server is away.
"""

from __future__ import annotations

import logging
import random
import threading
import traceback
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
        self,
        error: ProvdError,
        stop: threading.Event,
        *,
        probe: Callable[[], None],
        each: Callable[[], None],
        gives_up: Callable[[ProvdError], bool] = lambda _: False,
    ) -> bool:
        """Return when `probe` no longer raises a `ProvdError`, when stopped, or when `gives_up` says so of what it
        raises: only then it is False. `each` is called between tries.
        """
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
                if gives_up(error):
                    return False
            else:
                return True
        return True

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


def let_go(error: BaseException) -> None:
    """Forget what the functions that an error came through had in hand; where it came from can still be told."""
    seen: set[BaseException] = set()
    found: list[BaseException | None] = [error]
    while found:
        one = found.pop()
        if one is not None and one not in seen:
            seen.add(one)
            traceback.clear_frames(one.__traceback__)
            found += [one.__cause__, one.__context__]
