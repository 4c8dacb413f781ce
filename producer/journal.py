"""The journal: what this process has on disk, and in which of its spool files.

Invariants:

- Numbers are given and lines are written in one step under one lock, in the order of the numbers: a torn line is
  always the last, and a kill leaves no hole.
- A signal handler or finalizer that interrupts the writing, in the same thread, leaves its channel to be written when
  it has returned: it neither waits nor writes into the middle.
- Nothing here waits for the disk in a thread of the program, beyond `write(2)`: files are synced and sealed by the
  sender, without the lock.
- What a segment holds is kept as ranges, so that ten minutes of messages take as little memory as ten.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from provd.common import clock, wire
from provd.common.errors import SpoolError
from provd.common.files import sync_name
from provd.common.ranges import Ranges
from provd.producer.warning import warn_once

if TYPE_CHECKING:
    from provd.common.spool import Detached, SpoolWriter
    from provd.producer.channel import Channel
    from provd.producer.durable import DurableChannel

#: Bytes after which a segment is sealed: small enough to be given back soon, large enough to be few.
SEGMENT_BYTES = 64 << 20

#: Seconds without a message after which a segment is sealed, so that `provd replay` may bring it in.
_IDLE_S = 300.0

#: Seconds between two attempts to write to a disk that refuses.
_REFUSED_S = 1.0


class Segment:
    """A spool file of this process, and whose numbers are in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.is_open = True
        #: Whether it has lines that cannot be read back: it stays for people to look at.
        self.is_damaged = False
        self.written_at = clock.monotonic()
        self._spans: dict[Channel, list[list[int]]] = {}

    def add(self, channel: Channel, first: int, last: int, size: int) -> None:
        """Note lines that were written."""
        self.size += size
        self.written_at = clock.monotonic()
        spans = self._spans.get(channel)
        if spans is None:
            self._spans[channel] = [[first, last]]
        elif spans[-1][1] + 1 == first:
            spans[-1][1] = last
        else:
            spans.append([first, last])

    @property
    def channels(self) -> list[Channel]:
        """The channels that have lines in it."""
        return list(self._spans)

    def numbers(self, channel: Channel) -> Ranges:
        """The numbers of a channel that are in it."""
        return Ranges.of((first, last) for first, last in list(self._spans.get(channel, ())))

    def owed(self) -> dict[Channel, Ranges]:
        """What of it Redis does not have, by channel."""
        found = {
            channel: self.numbers(channel).common(channel.owed) for channel in self.channels if channel.owed
        }
        return {channel: numbers for channel, numbers in found.items() if numbers}

    @property
    def is_needed(self) -> bool:
        """Whether it has something that Redis does not have, or that the store has not confirmed."""
        return any(channel.needs(self.numbers(channel)) for channel in self.channels)


class Journal:
    """The spool files of this process. One for its life as a producer, over every sender it has."""

    def __init__(self, writer: SpoolWriter) -> None:
        self.lock = threading.RLock()
        #: The packer of all channels, for whoever has the right to write: each keeps a quarter of a megabyte.
        self.pack = wire.new_packer().pack
        self._writer = writer
        self._segments: list[Segment] = []
        self._writing = False
        self._owed: list[DurableChannel] = []
        self._dirty = False
        self._refused_until = 0.0
        #: Which life of Redis this process has spoken to last: one that differs may have lost what that one had.
        self.generation: str | None = None
        #: What the spool last refused messages for: dropped ones are counted under it.
        self.refusal = "cannot be spooled"

    # --- writing, in any thread ---

    def commit(self, channel: DurableChannel, *, announce: bool = False) -> None:
        """Number what a channel has to say and write it, before anything else happens to it."""
        with self.lock:
            if self._writing:
                self._owed.append(channel)
                return
            while True:
                self._writing = True
                try:
                    self._write_news(channel, announce)
                finally:
                    self._writing = False
                if not self._owed:
                    return
                channel = self._owed.pop()

    def begin(self) -> bool:
        """With the lock: take the right to write; False for whoever has interrupted the writing itself."""
        if self._writing:
            return False
        self._writing = True
        return True

    def end(self) -> None:
        """With the lock: give it back, and write what has been left meanwhile."""
        self._writing = False
        if self._owed:
            self.commit(self._owed.pop())

    def put(self, channel: Channel, first: int, last: int, lines: bytes) -> None:
        """With the right to write: append lines. Raises `SpoolError`; what was written is then told by nobody."""
        path = self._writer.append(lines)
        segment = self._segments[-1] if self._segments else None
        if segment is None or segment.path is not path:
            if segment is not None:
                # The writer has closed the one before by itself: its disk took no whole line.
                self._note_sealed(segment)
            segment = Segment(path)
            self._segments.append(segment)
        segment.add(channel, first, last, len(lines))
        self._dirty = True

    def _write_news(self, channel: DurableChannel, announce: bool) -> None:  # noqa: FBT001
        fresh = channel.number(announce=announce)
        if not fresh:
            return
        first, last = next(iter(fresh)), next(reversed(fresh))
        lines = [line for line in fresh.values() if line is not None]
        refused = bool(self._refused_until) and clock.monotonic() < self._refused_until
        if not refused and lines:
            try:
                self.put(channel, first, last, b"".join(lines))
            except SpoolError as error:
                self._refused_until = clock.monotonic() + _REFUSED_S
                self.refusal = error.kind
                refused = True
                warn_once(
                    "spool",
                    f"{error}; messages go to Redis from memory alone, and while it is away they are dropped and counted",
                )
        if len(lines) < len(fresh):
            warn_once(
                "no-line",
                "a message has no JSON form (a time after the year 9999?); it goes to Redis from memory alone",
            )
        if refused or len(lines) < len(fresh):
            channel.note_unwritten(seq for seq, line in fresh.items() if refused or line is None)
        channel.note_written(last)

    # --- files, in the sender's thread ---

    def sync(self) -> None:
        """Wait until what was written is on the disk."""
        with self.lock:
            if not self._dirty:
                return
            self._dirty = False
            file, path = self._duplicate()
        if file < 0:
            return
        try:
            os.fsync(file)
            if path is not None:
                sync_name(path)
        except OSError as error:
            warn_once("spool-sync", f"spool: {error.strerror}")
        finally:
            os.close(file)

    def _duplicate(self) -> tuple[int, Path | None]:
        try:
            return self._writer.duplicate()
        except OSError as error:
            warn_once("spool-sync", f"spool: {error.strerror}")
            return -1, None

    def seal(self) -> None:
        """Seal the file in hand, so that it can be brought in; the next message opens another."""
        with self.lock:
            detached = self._writer.detach()
            segment = self._segments[-1] if self._segments else None
        self._seal(detached, segment)

    def turn(self) -> None:
        """Seal the file in hand if it is large, or has been idle for long."""
        segment = self._segments[-1] if self._segments else None
        if segment is None or not segment.is_open:
            return
        if segment.size >= SEGMENT_BYTES or clock.monotonic() - segment.written_at > _IDLE_S:
            self.seal()

    def _seal(self, detached: Detached | None, segment: Segment | None) -> None:
        if detached is None:
            return
        try:
            path = detached.seal()
        except SpoolError as error:
            warn_once("spool", str(error))
            return
        if segment is not None and segment.path == detached.path:
            segment.path, segment.is_open = path, False

    def _note_sealed(self, segment: Segment) -> None:
        if segment.is_open:
            segment.is_open = False
            sealed = segment.path.with_name(segment.path.name.removesuffix(".open"))
            if sealed.exists():
                segment.path = sealed

    def segments(self) -> list[Segment]:
        """The files, oldest first."""
        return list(self._segments)

    def owe(self, channel: Channel, numbers: Ranges) -> None:
        """Note numbers that are on disk and not in Redis. Under the lock: any thread may come upon them."""
        with self.lock:
            channel.owed = channel.owed.union(numbers)

    def acquit(self, channel: Channel, numbers: Ranges) -> None:
        """Note that Redis, or the store, has these."""
        if channel.owed:
            with self.lock:
                channel.owed = channel.owed.minus(numbers)

    def trim(self) -> None:
        """Remove the files of which nothing is needed any more."""
        for segment in self.segments():
            if not (segment.is_damaged or segment.is_needed):
                self.remove(segment)

    def remove(self, segment: Segment) -> None:
        """Delete a file, unless it has been written to meanwhile."""
        with self.lock:
            if (
                self._writing
                or (segment.is_needed and not segment.is_damaged)
                or segment not in self._segments
            ):
                return
            detached = self._writer.detach() if segment.is_open and segment is self._segments[-1] else None
            self._segments.remove(segment)
            self._writer.release(segment.size)
        try:
            if detached is not None:
                os.close(detached.file)
            os.unlink(segment.path)
        except FileNotFoundError:
            pass  # somebody has brought it in
        except OSError as error:
            warn_once("spool", f"spool {segment.path}: {error.strerror}")

    def forget(self) -> None:
        """Let go of the parent's files, in the child after a fork."""
        self._writer.forget()
