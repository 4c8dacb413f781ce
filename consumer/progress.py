"""What a consumer has done so far, and how things stand around it.

- Counts only grow; what is `seen` (streams, memory, spools) is as it was at the last look.
- One thread counts, others take snapshots: a snapshot is a whole, never half of a change.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from provd.common import clock

#: Seconds over which the rate is taken.
_WINDOW_S = 5.0

#: Upper ends of the classes of batch latency, in seconds; the last class has none.
LATENCY_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

#: The two services, as metrics and people name them.
REDIS = "redis"
STORE = "store"


@dataclass(frozen=True, slots=True)
class Service:
    """How it is with a service: whether it answered last, and how often it came back after it had not."""

    up: bool = True
    reconnects: int = 0


@dataclass(frozen=True, slots=True)
class InRedis:
    """Unstored frames in the streams served; `oldest_s` is the age of the oldest, by Redis' clock."""

    streams: int = 0
    frames: int = 0
    #: Delivered to a consumer and not acknowledged.
    pending: int = 0
    oldest_s: float = 0.0
    memory_used: int = 0
    #: 0 when Redis has no limit.
    memory_limit: int = 0


@dataclass(frozen=True, slots=True)
class Producers:
    """What producers say of their own messages, over the workflows that have streams."""

    spooled: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts since the start, in messages unless said otherwise."""

    received: int = 0
    stored: int = 0
    duplicates: int = 0
    quarantined: int = 0
    #: Messages of deleted runs, which are not kept.
    refused: int = 0
    spooled: int = 0
    #: Messages taken back out of the consumer's own spool.
    brought_back: int = 0
    #: Writes to the store, and the seconds they took.
    batches: int = 0
    write_s: float = 0.0
    #: Writes by latency, one count for each of `LATENCY_S` and one beyond.
    latencies: tuple[int, ...] = (0,) * (len(LATENCY_S) + 1)
    #: Bytes and files of the consumer's own spool that are not in the store yet.
    backlog_bytes: int = 0
    backlog_files: int = 0
    in_redis: InRedis = InRedis()
    producers: Producers = Producers()
    redis: Service = Service()
    store: Service = Service()
    #: Messages received a second, of late.
    rate: float = 0.0
    #: `running`, or what is being waited for.
    state: str = "starting"

    @property
    def lag(self) -> int:
        """Frames in Redis that are not acknowledged."""
        return self.in_redis.frames


class Tally:
    """Keeps the counts and gives snapshots of them."""

    def __init__(self) -> None:
        self._now = Progress()
        self._samples: deque[tuple[float, int]] = deque([(clock.monotonic(), 0)])
        self._sampling = threading.Lock()

    @property
    def received(self) -> int:
        """Messages read so far."""
        return self._now.received

    @property
    def moved(self) -> int:
        """Messages read so far, from Redis or from the consumer's own spool."""
        return self._now.received + self._now.brought_back

    def add(
        self,
        *,
        received: int = 0,
        stored: int = 0,
        duplicates: int = 0,
        quarantined: int = 0,
        refused: int = 0,
        spooled: int = 0,
        brought_back: int = 0,
        batches: int = 0,
        write_s: float = 0.0,
    ) -> None:
        """Count; with `batches=1`, `write_s` is that batch's latency."""
        now = self._now
        self._now = replace(
            now,
            received=now.received + received,
            stored=now.stored + stored,
            duplicates=now.duplicates + duplicates,
            quarantined=now.quarantined + quarantined,
            refused=now.refused + refused,
            spooled=now.spooled + spooled,
            brought_back=now.brought_back + brought_back,
            batches=now.batches + batches,
            write_s=now.write_s + write_s,
            latencies=_counted(now.latencies, write_s) if batches else now.latencies,
        )

    def say(self, state: str) -> None:
        """Set the state."""
        self._now = replace(self._now, state=state)

    def see_lag(self, frames: int, streams: int) -> None:
        """Set the number of unacknowledged frames, and of streams."""
        self._now = replace(self._now, in_redis=replace(self._now.in_redis, frames=frames, streams=streams))

    def see_redis(self, *, pending: int, oldest_s: float, memory_used: int, memory_limit: int) -> None:
        """Set what a closer look at Redis found."""
        found = replace(
            self._now.in_redis,
            pending=pending,
            oldest_s=oldest_s,
            memory_used=memory_used,
            memory_limit=memory_limit,
        )
        self._now = replace(self._now, in_redis=found)

    def see_producers(self, producers: Producers) -> None:
        """Set what producers say."""
        self._now = replace(self._now, producers=producers)

    def see_backlog(self, *, files: int, size: int) -> None:
        """Set what is left in the consumer's own spool."""
        self._now = replace(self._now, backlog_files=files, backlog_bytes=size)

    def lose(self, service: str) -> None:
        """`REDIS` or `STORE` does not answer."""
        known = self._now.redis if service == REDIS else self._now.store
        self._set(service, replace(known, up=False))

    def reach(self, service: str) -> None:
        """`REDIS` or `STORE` has done its work; after a loss that is a reconnect."""
        known = self._now.redis if service == REDIS else self._now.store
        if not known.up:
            self._set(service, Service(True, known.reconnects + 1))

    def _set(self, service: str, found: Service) -> None:
        if service == REDIS:
            self._now = replace(self._now, redis=found)
        else:
            self._now = replace(self._now, store=found)

    def snapshot(self) -> Progress:
        """The counts now; the rate is that of the last seconds."""
        now, moment = self._now, clock.monotonic()
        with self._sampling:
            self._samples.append((moment, now.received))
            while len(self._samples) > 2 and moment - self._samples[1][0] > _WINDOW_S:
                self._samples.popleft()
            since, before = self._samples[0]
        passed = moment - since
        return replace(now, rate=(now.received - before) / passed if passed > 0 else 0.0)


def _counted(latencies: tuple[int, ...], seconds: float) -> tuple[int, ...]:
    place = next((place for place, end in enumerate(LATENCY_S) if seconds <= end), len(LATENCY_S))
    return (*latencies[:place], latencies[place] + 1, *latencies[place + 1 :])
