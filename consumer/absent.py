"""Names of consumers that are gone are removed from the group, so that a stream does not list everyone who ever came.

- A name goes when it has nothing pending and has not been seen for an hour; the server checks both in one step. A
  consumer that comes back is entered again by its first reading.
"""

from __future__ import annotations

from collections.abc import Iterable

from provd.common import clock, names
from provd.consumer import scripts
from provd.consumer.broker import Broker

#: Silence after which a name is gone, in milliseconds.
_GONE_MS = 3600 * 1000

#: Seconds between two rounds over all streams, and before the first one.
_PAUSE_S = 600.0

#: Streams in one look.
_AT_ONCE = 200


class Absent:
    """Goes round the streams, a few at a time."""

    def __init__(
        self, broker: Broker, *, consumer: str, gone_ms: int = _GONE_MS, pause_s: float = _PAUSE_S
    ) -> None:
        self._broker = broker
        self._consumer = consumer
        self._gone_ms = gone_ms
        self._pause_s = pause_s
        self._due = clock.monotonic() + pause_s
        self._waiting: list[str] = []

    def look(self, streams: Iterable[str]) -> int:
        """Remove names from the next streams if it is time; returns how many. Raises `BrokerUnavailable`."""
        if not self._waiting:
            if clock.monotonic() < self._due:
                return 0
            self._due = clock.monotonic() + self._pause_s
            self._waiting = list(streams)
        part, self._waiting = self._waiting[:_AT_ONCE], self._waiting[_AT_ONCE:]
        replies = self._broker.run(
            [
                ("EVAL", scripts.FORGET, 1, stream, names.GROUP, self._consumer, self._gone_ms)
                for stream in part
            ]
        )
        return sum(reply for reply in replies if isinstance(reply, int))
