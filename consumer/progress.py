"""What a consumer has done so far."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

from provd.common import clock

#: Seconds over which the rate is taken.
_WINDOW_S = 5.0


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts since the start, in messages unless said otherwise."""

    received: int = 0
    stored: int = 0
    duplicates: int = 0
    quarantined: int = 0
    spooled: int = 0
    #: Writes to the store, and the seconds they took.
    batches: int = 0
    write_s: float = 0.0
    #: Frames in Redis that are not acknowledged.
    lag: int = 0
    #: Messages received a second, of late.
    rate: float = 0.0
    #: `running`, or what is being waited for.
    state: str = "starting"


class Tally:
    """Keeps the counts and gives snapshots of them."""

    def __init__(self) -> None:
        self._now = Progress()
        self._samples: deque[tuple[float, int]] = deque([(clock.monotonic(), 0)])

    @property
    def received(self) -> int:
        """Messages read so far."""
        return self._now.received

    def add(
        self,
        *,
        received: int = 0,
        stored: int = 0,
        duplicates: int = 0,
        quarantined: int = 0,
        spooled: int = 0,
        batches: int = 0,
        write_s: float = 0.0,
    ) -> None:
        """Count."""
        now = self._now
        self._now = replace(
            now,
            received=now.received + received,
            stored=now.stored + stored,
            duplicates=now.duplicates + duplicates,
            quarantined=now.quarantined + quarantined,
            spooled=now.spooled + spooled,
            batches=now.batches + batches,
            write_s=now.write_s + write_s,
        )

    def say(self, state: str) -> None:
        """Set the state."""
        self._now = replace(self._now, state=state)

    def see_lag(self, frames: int) -> None:
        """Set the number of unacknowledged frames."""
        self._now = replace(self._now, lag=frames)

    def snapshot(self) -> Progress:
        """The counts now; the rate is that of the last seconds."""
        moment = clock.monotonic()
        self._samples.append((moment, self._now.received))
        while len(self._samples) > 2 and moment - self._samples[1][0] > _WINDOW_S:
            self._samples.popleft()
        since, before = self._samples[0]
        passed = moment - since
        rate = (self._now.received - before) / passed if passed > 0 else 0.0
        return replace(self._now, rate=rate)
