"""Bringing a spool into the broker: the same messages, in frames cut anew.

- Seqs are kept, so replaying twice, or what Redis already has, changes nothing in the store (G3).
- A line that cannot be read is reported with its file and number, and passed over.
- Files are left as they are: that Redis has a message does not yet mean that the store has it.
- Memory is bounded by one pipeline of frames.
- A Redis that is full is waited for as long as somebody makes room: a spool may be larger than its memory. While it is
  full, frames go one by one, so that none is sent twice for the sake of one that did not fit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from provd.common import clock
from provd.common.errors import BrokerFull, BrokerUnavailable
from provd.common.passwords import mask_url
from provd.common.settings import Settings
from provd.common.spool import BadLine
from provd.common.spool_reader import SpoolFile, SpoolReader
from provd.producer.broker import Broker
from provd.producer.framing import CutFrame, Limits
from provd.producer.recut import runs

#: Frames handed to Redis in one pipeline, and bytes of lines in them.
_PIPELINE = 16
_PIPELINE_BYTES = 16 << 20

#: Seconds that a full Redis is waited for without one frame going in, and the first and the longest pause meanwhile.
PATIENCE_S = 60.0
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What a replay did: files read, messages sent, the first of `bad_count` lines that could not be read, and the
    files that were still open when they were read, or gone.
    """

    files: int
    messages: int
    bad_lines: tuple[BadLine, ...]
    bad_count: int = 0
    open: int = 0
    gone: int = 0


def replay_into_broker(
    paths: Iterable[Path],
    settings: Settings,
    *,
    progress: Callable[[Path, int], None] | None = None,
    on_full: Callable[[BrokerFull], None] | None = None,
    patience_s: float = PATIENCE_S,
) -> ReplayReport:
    """Send every message of these files and folders to Redis. `progress` is told the file and the messages sent.

    A full Redis is waited for until nothing has gone in for `patience_s`; `on_full` is told the first time.

    Raises `BrokerUnavailable` (what was sent stays sent; replay again) and `SpoolError` for a path that is not there.
    """
    url = settings.resolved_broker_url()
    if not url:
        raise BrokerUnavailable(
            mask_url(settings.broker_url or "(none)"),
            "not a broker; name a Redis by --broker, or bring the files into a store by --store",
        )
    broker = Broker(
        url,
        namespace=settings.namespace,
        buckets=settings.buckets,
        timeout_s=max(10.0, settings.connect_timeout_s),
    )
    room = _Room(broker, patience_s, on_full)
    reader = SpoolReader()
    sent = 0
    try:
        room.wait_for(broker.open)
        for file in reader.read(paths):
            for batch in _batches(_frames(reader, file, settings)):
                room.send(batch)
                sent += sum(frame.header.count for frame in batch)
                if progress is not None:
                    progress(file.path, sent)
    finally:
        broker.close()
    return ReplayReport(reader.files, sent, tuple(reader.bad), reader.bad_count, reader.open, reader.gone)


class _Room:
    """Sends frames, and waits where Redis has no room for them."""

    def __init__(
        self, broker: Broker, patience_s: float, on_full: Callable[[BrokerFull], None] | None
    ) -> None:
        self._broker = broker
        self._patience_s = patience_s
        self._on_full = on_full
        self._is_full = False
        self._has_said = False

    def send(self, frames: Sequence[CutFrame]) -> None:
        """Send all frames. Raises `BrokerFull` when there was no room for one of them for too long."""
        if not self._is_full:
            try:
                self._broker.send(frames)
                return
            except BrokerFull as error:
                self._say(error)
        waited = [self.wait_for(lambda frame=frame: self._broker.send([frame])) for frame in frames]  # type: ignore[misc]
        self._is_full = any(waited)

    def wait_for(self, action: Callable[[], None]) -> bool:
        """Do it as soon as there is room; says whether there was none at first."""
        deadline = clock.monotonic() + self._patience_s
        pause = _FIRST_PAUSE_S
        while True:
            try:
                action()
                return pause > _FIRST_PAUSE_S
            except BrokerFull as error:
                self._say(error)
                if clock.monotonic() >= deadline:
                    reason = f"full, and nothing fitted for {self._patience_s:g} s: start `provd consume`"
                    raise BrokerFull(error.url, reason) from error
            threading.Event().wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _say(self, error: BrokerFull) -> None:
        self._is_full = True
        if not self._has_said and self._on_full is not None:
            self._on_full(error)
        self._has_said = True


def _frames(reader: SpoolReader, file: SpoolFile, settings: Settings) -> Iterator[CutFrame]:
    def tell(line: int, error: Exception) -> None:
        reader.tell(file, line, f"does not fit into a frame: {error}")

    for run in runs(reader.lines(file), Limits(settings.frame_messages, settings.frame_bytes)):
        yield from run.frames(run.first.record.get("campaign_id"), tell)


def _batches(frames: Iterator[CutFrame]) -> Iterator[list[CutFrame]]:
    batch: list[CutFrame] = []
    size = 0
    for frame in frames:
        batch.append(frame)
        size += frame.size
        if len(batch) == _PIPELINE or size >= _PIPELINE_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
