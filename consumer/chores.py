"""What a consumer does now and then, between batches: tell how it goes, copy heartbeats, retire what has ended.

- Each of it takes a bounded share of the time, however many streams there are (`Pace`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from provd.common import clock
from provd.consumer.absent import Absent
from provd.consumer.backlog import Backlog
from provd.consumer.beats import Beats
from provd.consumer.compaction import Compaction
from provd.consumer.pace import Pace
from provd.consumer.presence import Presence
from provd.consumer.progress import Progress, Tally
from provd.consumer.registry import Registry
from provd.consumer.retirement import Retirement
from provd.consumer.streams import Streams
from provd.store.interface import Stored

#: Seconds between two reports of progress, two copies of heartbeats, two looks for ended workflows, at least. A consumer
#: whose mark is half a minute old reads as silent (`overview`): its copies of heartbeats come before that.
_TELL_S = 0.5
_BEATS_S = 3.0
_BEATS_LONGEST_S = 20.0
_MEASURE_S = 2.0

#: While many workflows have ended at once, looks are closer: a pause is this much longer than the look before it.
_RETIRING_PAUSE = 2.0


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
        presence: Presence,
        backlog: Backlog,
        compaction: Compaction,
        absent: Absent,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._tally = tally
        self._registry = registry
        self._streams = streams
        self._beats = beats
        self._retirement = retirement
        self._presence = presence
        self._backlog = backlog
        self._compaction = compaction
        self._absent = absent
        self._on_progress = on_progress
        self._told = 0.0
        self._copying = Pace(_BEATS_S, longest_s=_BEATS_LONGEST_S)
        self._measuring = Pace(_MEASURE_S)
        #: Heartbeats that brought something new, so far.
        self.beats_seen = 0

    def tell(self, *, now: bool = False) -> None:
        """Report progress if it is time, or `now`. Touches no service."""
        if self._on_progress is not None and (now or clock.monotonic() - self._told >= _TELL_S):
            self._told = clock.monotonic()
            self._on_progress(self._tally.snapshot())

    def do(self) -> None:
        """Do what is due. Raises when a service is away."""
        if self._copying.is_due:
            with self._copying.doing():
                self._copy()
        if self._measuring.is_due:
            with self._measuring.doing():
                lengths = self.measure()
                self._backlog.look(lengths)
                self._compaction.look(lengths)
                self._absent.look(lengths)
                started = clock.monotonic()
                self._retirement.look(lengths)
            if self._retirement.has_more:
                self._measuring.hasten(_RETIRING_PAUSE * (clock.monotonic() - started))

    def finish(self) -> None:
        """Do what makes the store's picture whole at the end of a run. Raises when a service is away."""
        self._copy(state="stopped")
        lengths = self.measure()
        while self._retirement.look(lengths):
            if not self._retirement.has_more:
                break

    def measure(self) -> dict[str, int]:
        """Unacknowledged frames of each stream."""
        lengths = self._streams.lengths()
        self._tally.see_lag(sum(lengths.values()), len(lengths))
        return lengths

    def note_ledger(self, entries: Iterable[Stored]) -> None:
        """The ledger has grown by these."""
        self._compaction.note(entries)

    def lapse(self) -> None:
        """Redis is away: producers that are silent now may not be able to speak."""
        self._presence.lapse()

    def now_ms(self) -> int:
        """The present by Redis' clock, as far as known: what `received_at` is taken from."""
        return self._presence.now_ms()

    def _copy(self, state: str = "running") -> None:
        at = self._presence.look()
        self.beats_seen += self._beats.copy(self._registry.streams)
        self._presence.mark(at, state)
        self._tally.see_producers(self._beats.producers)
