"""When something that is done now and then is due: what grows with the number of streams leaves the time to storing.

- It is due a fixed pause after it was done, or later: after a multiple of what it took, up to a longest pause. So its
  share of the time stays small with tens of thousands of streams.
- One slow answer puts nothing off: what counts is the shorter of the last two times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from provd.common import clock

#: How much longer than it took the pause is.
_REST = 30.0

#: The longest pause that this makes, in seconds: half of the silence after which readers call a producer lost.
_LONGEST_S = 30.0


class Pace:
    """Keeps the time of one thing."""

    def __init__(
        self, pause_s: float, *, longest_s: float = _LONGEST_S, now: Callable[[], float] = clock.monotonic
    ) -> None:
        """It is due at once, and then every `pause_s` seconds if it takes little."""
        self._pause_s = pause_s
        self._longest_s = longest_s
        self._now = now
        self._due = 0.0
        self._took_s = 0.0

    @property
    def is_due(self) -> bool:
        """Whether it is time."""
        return self._now() >= self._due

    @contextmanager
    def doing(self) -> Iterator[None]:
        """It is done now. What fails stays due."""
        started = self._now()
        yield
        done = self._now()
        took_s, self._took_s = min(self._took_s, done - started), done - started
        self._due = done + max(self._pause_s, min(self._longest_s, _REST * took_s))

    def hasten(self, pause_s: float) -> None:
        """Have it due after this time, if that is earlier."""
        self._due = min(self._due, self._now() + pause_s)

    def expire(self) -> None:
        """Have it due at once."""
        self._due = 0.0
