"""What a consumer does now and then, between batches: tell how it goes, copy heartbeats, retire what has ended."""

from __future__ import annotations

from collections.abc import Callable

from provd.common import clock
from provd.consumer.beats import Beats
from provd.consumer.progress import Progress, Tally
from provd.consumer.registry import Registry
from provd.consumer.retirement import Retirement
from provd.consumer.streams import Streams

#: Seconds between two reports of progress, two copies of heartbeats, two looks for ended workflows.
_TELL_S = 0.5
_BEATS_S = 3.0
_MEASURE_S = 2.0


class Chores:
    """Keeps its own time: call it as often as you like."""

    def __init__(
        self,
        *,
        tally: Tally,
        registry: Registry,
        streams: Streams,
        beats: Beats,
        retirement: Retirement,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._tally = tally
        self._registry = registry
        self._streams = streams
        self._beats = beats
        self._retirement = retirement
        self._on_progress = on_progress
        self._told = self._copied = self._measured = 0.0
        #: Heartbeats that brought something new, so far.
        self.beats_seen = 0

    def tell(self, *, now: bool = False) -> None:
        """Report progress if it is time, or `now`. Touches no service."""
        if self._on_progress is not None and (now or clock.monotonic() - self._told >= _TELL_S):
            self._told = clock.monotonic()
            self._on_progress(self._tally.snapshot())

    def do(self) -> None:
        """Do what is due. Raises when a service is away."""
        if clock.monotonic() - self._copied >= _BEATS_S:
            self._copy()
        if clock.monotonic() - self._measured >= _MEASURE_S:
            self._retirement.look(self.measure())
            self._measured = clock.monotonic()

    def finish(self) -> None:
        """Do what makes the store's picture whole at the end of a run. Raises when a service is away."""
        self._copy()
        self._retirement.look(self.measure())

    def measure(self) -> dict[str, int]:
        """Unacknowledged frames of each stream."""
        lengths = self._streams.lengths()
        self._tally.see_lag(sum(lengths.values()))
        return lengths

    def _copy(self) -> None:
        self.beats_seen += self._beats.copy(self._registry.streams)
        self._copied = clock.monotonic()
