"""Receipts: what the store has confirmed of a process with `durability: disk`, and what is sent again without.

Invariants:

- A receipt once given stays true. What has none is sent again when Redis may have lost it: in another life of Redis,
  when the stream is gone, and where later numbers have theirs for long (a message damaged on the way). Sent twice, a
  message changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from provd.common import clock
from provd.common.ranges import Ranges

if TYPE_CHECKING:
    from provd.producer.broker import Broker
    from provd.producer.channel import Channel
    from provd.producer.journal import Journal

#: Seconds between two looks, doubled up to the second figure while they bring nothing; from then on the process looks
#: when it wakes for its heartbeat, and once in the third figure at least.
_ASK_S = (1.0, 5.0, 60.0)

#: Seconds between two looks at the end of the process.
_ASK_AT_END_S = 0.05

#: Seconds that a gap among the receipts may last before it is sent again, doubled each time up to the second figure.
_GAP_S = (30.0, 1800.0)


class Receipts:
    """Asks for receipts."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._ask_s = _ASK_S[0]
        self.due_at = 0.0
        self._gaps: dict[Channel, Ranges] = {}
        self._gap_s = _GAP_S[0]
        self._gaps_at = clock.monotonic() + _GAP_S[0]

    def are_awaited(self, channels: Sequence[Channel]) -> bool:
        """Whether something was sent, or is to be, that the store has not confirmed."""
        return any(channel.awaits_receipts for channel in channels)

    def ask(self, broker: Broker, channels: Sequence[Channel], next_beat: float = 0.0) -> bool:
        """Read what is new; says whether anything was. Raises `BrokerUnavailable`."""
        news = False
        awaiting = [channel for channel in channels if channel.awaits_receipts]
        wanted = [
            (broker.keys_of(channel.workflow_id, channel.campaign_id), channel.producer_id)
            for channel in awaiting
        ]
        for channel, stored in zip(awaiting, broker.stored(wanted)):
            receipts = channel.receipts.union(stored)
            news = news or receipts != channel.receipts
            channel.receipts = receipts
            self._journal.acquit(channel, receipts)
        self._ask_s = _ASK_S[0] if news else min(2 * self._ask_s, _ASK_S[1])
        self.due_at = clock.monotonic() + self._ask_s
        if self._ask_s == _ASK_S[1] and self.due_at < next_beat:
            self.due_at = min(next_beat, clock.monotonic() + _ASK_S[2])
        if clock.monotonic() >= self._gaps_at:
            self._look_for_gaps(broker, channels)
        return news

    def wait(self, broker: Broker, channels: Sequence[Channel], deadline: float) -> None:
        """Ask until all is confirmed or time is up. Raises `BrokerUnavailable`."""
        from threading import Event

        pause = Event()
        while self.are_awaited(channels) and (left := deadline - clock.monotonic()) > 0:
            self.ask(broker, channels)
            if self.are_awaited(channels):
                pause.wait(min(_ASK_AT_END_S, left))

    def doubt(self, channels: Sequence[Channel]) -> None:
        """Redis may have lost what it had: owe it everything that the store has not confirmed."""
        for channel in channels:
            if channel.is_durable:
                self._journal.owe(channel, channel.spooled)
        self.due_at = 0.0

    def _look_for_gaps(self, broker: Broker, channels: Sequence[Channel]) -> None:
        self._gaps_at = clock.monotonic() + self._gap_s
        before, self._gaps = self._gaps, {}
        repeated = False
        for channel in channels:
            if not channel.awaits_receipts:
                continue
            missing = channel.spooled.minus(channel.owed)
            if broker.has_stream(broker.keys_of(channel.workflow_id, channel.campaign_id)):
                missing = missing.common(Ranges.of([(1, channel.receipts.last)]))
            self._gaps[channel] = missing
            again = missing.common(before.get(channel, Ranges()))
            if again:
                self._journal.owe(channel, again)
                repeated = True
        self._gap_s = min(2 * self._gap_s, _GAP_S[1]) if repeated else _GAP_S[0]
