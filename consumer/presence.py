"""This consumer's mark in the store: by it readers know the present, and who moves their records.

- A mark says: what producers had told Redis by `broker_at` is in the store. So the instant is taken before heartbeats
  are copied, and written after.
- `since` is when the watch began: at the start, and anew after Redis was away, because a producer that cannot reach
  Redis is not silent. Readers count silence only while somebody watched.
- All instants are Redis' clock. The host's own clock does not count.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import version

from provd.common import clock
from provd.consumer.broker import Broker
from provd.consumer.progress import REDIS, STORE, Progress, Tally
from provd.store.interface import ConsumerMark, Store


class Presence:
    """Writes the mark."""

    def __init__(
        self,
        broker: Broker,
        store: Store,
        tally: Tally,
        *,
        name: str,
        hostname: str,
        workflow_ids: Sequence[str] = (),
    ) -> None:
        self._broker = broker
        self._store = store
        self._tally = tally
        self._name = name
        self._hostname = hostname
        self._workflow_ids = tuple(workflow_ids)
        self._version = version("provd")
        self._since: int | None = None
        #: Milliseconds that Redis' clock is ahead of this host's.
        self._ahead = 0

    def now_ms(self) -> int:
        """The present by Redis' clock, as far as known. Asks nobody."""
        return clock.now_ms() + self._ahead

    def look(self) -> int:
        """The present, asked of Redis. Raises `BrokerUnavailable`."""
        now = self._broker.now_ms()
        self._ahead = now - clock.now_ms()
        if self._since is None:
            self._since = now
        self._tally.reach(REDIS)
        return now

    def mark(self, broker_at: int, state: str) -> None:
        """Say that all that Redis knew at `broker_at` is in the store. Raises `StoreUnavailable`."""
        progress = self._tally.snapshot()
        self._store.put_consumer(
            ConsumerMark(
                name=self._name,
                hostname=self._hostname,
                pid=os.getpid(),
                version=self._version,
                state=state,
                since=broker_at if self._since is None else self._since,
                broker_at=broker_at,
                workflow_ids=self._workflow_ids,
                figures=_figures(progress),
            )
        )
        self._tally.reach(STORE)

    def lapse(self) -> None:
        """Redis is away: the watch begins anew when it is back."""
        self._since = None


def _figures(progress: Progress) -> dict[str, int | float]:
    return {
        "received": progress.received,
        "stored": progress.stored,
        "duplicates": progress.duplicates,
        "quarantined": progress.quarantined,
        "spooled": progress.spooled,
        "backlog_bytes": progress.backlog_bytes,
        "rate": round(progress.rate, 1),
    }
