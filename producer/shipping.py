"""Bringing this process' own spool to Redis, when it answers again.

Invariants:

- A file is read as a stream, a few frames at a time: an outage of any length takes the memory of one frame.
- What Redis has acknowledged is owed no more; a send that may or may not have happened is repeated, which changes
  nothing.
- A slice is short and followed by a rest, so that the program keeps its speed.
- A frame is as large as those of the program at most, in messages and in bytes.
- Lines that cannot be read back, or that fit into no frame, are told about; their file stays, and the rest is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from provd.common import clock
from provd.common.errors import SpoolError
from provd.producer.framing import CutFrame, Limits
from provd.producer.recut import runs
from provd.producer.warning import warn_once

if TYPE_CHECKING:
    from pathlib import Path

    from provd.common.ranges import Ranges
    from provd.common.record import Message
    from provd.producer.broker import Broker
    from provd.producer.channel import Channel
    from provd.producer.journal import Journal, Segment

#: Seconds of work in one slice, and of rest after it, as a multiple of the work.
_SLICE_S = 0.01
_REST = 4.0

#: Seconds until the next look, when what is owed cannot be sent.
_NOTHING_S = 1.0


class Shipping:
    """Sends what is owed, from the segments of a journal."""

    def __init__(self, journal: Journal, limits: Limits) -> None:
        self._journal = journal
        self._limits = limits
        self._segment: Segment | None = None
        self._frames: Iterator[tuple[Channel, CutFrame]] | None = None
        #: What was owed of the file when its reading began and has not come up in it.
        self._unread: dict[Channel, Ranges] = {}
        self._rest_until = 0.0

    @property
    def rests_until(self) -> float:
        """When the next slice is due."""
        return self._rest_until

    def slice(self, broker: Broker, deadline: float | None = None) -> None:
        """Send for a moment, or to `deadline` without a rest. Raises `BrokerUnavailable`, and begins the file again."""
        started = clock.monotonic()
        until = started + _SLICE_S if deadline is None else deadline
        try:
            while clock.monotonic() < until:
                if not self._send_one(broker):
                    self._rest_until = clock.monotonic() + _NOTHING_S
                    return
        except BaseException:
            self._frames = None
            raise
        self._rest_until = clock.monotonic() + _REST * (clock.monotonic() - started)

    def _send_one(self, broker: Broker) -> bool:
        if self._frames is None:
            self._segment = self._next_segment()
            if self._segment is None:
                return False
            self._frames = self._read(self._segment)
        try:
            found = next(self._frames, None)
        except SpoolError as error:
            self._give_up(str(error))
            return True
        if found is None:
            self._finish()
            return True
        channel, frame = found
        broker.send([frame])
        self._journal.acquit(channel, frame.span)
        self._unread[channel] = self._unread[channel].minus(frame.span)
        return True

    def _next_segment(self) -> Segment | None:
        for segment in self._journal.segments():
            if not segment.is_damaged and segment.owed():
                if segment.is_open:
                    self._journal.seal()
                return segment
        return None

    def _finish(self) -> None:
        """The file has been read to its end. What has come to be owed meanwhile is for the next reading."""
        self._frames = None
        if self._segment is not None and any(
            numbers.common(channel.owed) for channel, numbers in self._unread.items()
        ):
            self._give_up(f"spool {self._segment.path}: some of its lines cannot be read back")

    def _give_up(self, reason: str) -> None:
        self._frames = None
        segment = self._segment
        if segment is None:
            return
        segment.is_damaged = True
        if _may_exist(segment.path):
            warn_once("spool-read", f"{reason}; the file stays for `provd replay`")
            return
        # Somebody has brought it in and removed it.
        for channel, numbers in segment.owed().items():
            self._journal.acquit(channel, numbers)
        self._journal.remove(segment)

    def _read(self, segment: Segment) -> Iterator[tuple[Channel, CutFrame]]:
        from provd.common.spool import read_spool

        self._unread = segment.owed()
        owed = {
            (channel.producer_id, channel.workflow_id): (channel, spans)
            for channel, spans in self._unread.items()
        }
        wanted = (line for line in read_spool(segment.path) if _is_wanted(line.message, owed))
        for run in runs(wanted, self._limits):
            channel, _ = owed[run.first.producer_id, run.first.workflow_id]
            for frame in run.frames(channel.campaign_id, _pass_over, receipt=channel.is_durable):
                yield channel, frame


def _may_exist(path: Path) -> bool:
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError:
        pass  # a file system that is away for a moment has not lost it
    return True


def _is_wanted(message: Message | None, owed: Mapping[tuple[str, str], tuple[Channel, Ranges]]) -> bool:
    if message is None:
        return False
    found = owed.get((message.producer_id, message.workflow_id))
    return found is not None and message.seq in found[1]


def _pass_over(_line: int, _error: Exception) -> None:
    """It stays owed, and the file is told about at its end."""
