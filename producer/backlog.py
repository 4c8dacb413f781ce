"""The backlog: frames that were cut and wait for Redis, and what becomes of them when they cannot.

Invariants:

- A frame leaves it only when Redis has acknowledged it, when `write(2)` of its spool lines has returned, or when both
  refused, there was no room to wait in, and it was counted as dropped (G2, G5).
- It is taken off when it is elsewhere: an exception of a signal handler in between loses none. At most a frame is
  sent or spooled twice.
- Any thread may add, and spool; who interrupts the spooling itself, in the same thread, leaves it to that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from provd.common import wire
from provd.common.errors import SpoolError
from provd.common.ranges import Ranges
from provd.producer.border import swallow
from provd.producer.channel import Channel
from provd.producer.framing import CutFrame
from provd.producer.journal import Journal
from provd.producer.warning import warn_once

#: A frame, and whose it is.
Waiting = tuple[Channel, CutFrame]


class Backlog:
    """The queue of a sender."""

    def __init__(self, journal: Journal, room: Callable[[], int]) -> None:
        """`room` tells how many bytes may wait for Redis when the disk has refused them."""
        #: Bytes that wait.
        self.size = 0
        #: Whether there are frames that the disk has refused, and that wait for Redis.
        self.is_refused = False
        self._journal = journal
        self._room = room
        self._queue: deque[Waiting] = deque()

    def __bool__(self) -> bool:
        return bool(self._queue)

    def add(self, channel: Channel) -> None:
        """Cut all that a channel has to say."""

        def accept(frame: CutFrame) -> None:
            size = frame.size  # first: a call between reading and writing the sum would let another thread in
            self.size += size
            self._queue.append((channel, frame))

        channel.cut(accept)

    def first(self, count: int) -> list[Waiting]:
        """The oldest frames, at most so many; they stay until `remove`."""
        while True:
            try:
                return [self._queue[index] for index in range(min(count, len(self._queue)))]
            except IndexError:
                continue  # a user's thread has spooled them meanwhile

    def remove(self, batch: Sequence[Waiting]) -> None:
        """Take sent frames off the queue; a user's thread may have spooled them meanwhile, which does no harm."""
        journal = self._journal
        with journal.lock:
            if not journal.begin():
                return  # what stays is sent or spooled once more
            try:
                for sent in batch:
                    if self._queue and self._queue[0] is sent:
                        self._take_off()
            finally:
                journal.end()

    def _take_off(self) -> None:
        """Remove the first frame, with the right to write: nobody else may between the look and the removal."""
        size = self._queue[0][1].size
        # No call from here on: neither a signal handler nor a thread comes in between.
        self.size -= size
        del self._queue[0]

    def spool(self) -> None:
        """Move every frame to the spool. What the disk refuses waits for Redis, or is dropped and counted."""
        journal = self._journal
        with journal.lock:
            if not journal.begin():
                return  # a signal handler has interrupted this very thread: the rest is its to write
            refused: list[tuple[Channel, CutFrame, Ranges]] = []
            try:
                while self._queue:
                    first = self._queue[0]
                    missing = self._put_away(*first)
                    if missing:
                        refused.append((*first, missing))
                    self._take_off()
            finally:
                self._keep(refused)
                journal.end()

    def _put_away(self, channel: Channel, frame: CutFrame) -> Ranges:
        """Leave a frame to the disk; the numbers that it does not have then."""
        span, header = frame.span, frame.header
        if channel.is_durable:
            there = span.minus(channel.unwritten)
            self._journal.owe(channel, there)
            return span.minus(there)
        # What is owed was written when the frame was here before.
        lines = _lines_of(frame, span.minus(channel.owed))
        try:
            if lines:
                self._journal.put(channel, header.first_seq, header.last_seq, b"".join(lines.values()))
                self._journal.owe(channel, Ranges.of_numbers(lines))
        except SpoolError as error:
            self._journal.refusal = error.kind
            warn_once("spool", f"{error}; messages are dropped and counted")
        return span.minus(channel.owed)

    def _keep(self, refused: list[tuple[Channel, CutFrame, Ranges]]) -> None:
        """Let frames wait in memory for Redis, as far as there is room, the newest first."""
        self.is_refused = False
        for channel, frame, missing in reversed(refused):
            if frame.size <= self._room() - self.size:
                self.size += frame.size
                self._queue.appendleft((channel, frame))
                self.is_refused = True
            else:
                channel.drop(missing, self._journal.refusal)


def _lines_of(frame: CutFrame, wanted: Ranges) -> dict[int, bytes]:
    """The lines of these numbers of a frame, without those that no line can hold."""
    from provd.common.spool import encode_line

    lines: dict[int, bytes] = {}
    for message in wire.decode(frame.header_field, frame.body_field).messages:
        if message.seq in wanted:
            try:
                lines[message.seq] = encode_line(message)
            except Exception as error:  # noqa: BLE001 - one must not keep the others
                swallow(error)
    return lines
