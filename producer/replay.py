"""Bringing a spool into the broker: the same messages, in frames cut anew.

- Seqs are kept, so replaying twice, or what Redis already has, changes nothing in the store (G3).
- A line that cannot be read is reported with its file and number, and passed over.
- Files are left as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from provd.common import wire
from provd.common.errors import BrokerUnavailable
from provd.common.record import Message
from provd.common.settings import Settings, mask_url
from provd.common.spool import BadLine, read_spool, spool_files
from provd.producer.broker import Broker
from provd.producer.framing import CutFrame

#: Frames handed to Redis in one pipeline.
_PIPELINE = 16


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What a replay did: files read, messages sent, lines that could not be read."""

    files: int
    messages: int
    bad_lines: tuple[BadLine, ...]


def replay_into_broker(
    paths: Iterable[Path], settings: Settings, *, progress: Callable[[Path, int], None] | None = None
) -> ReplayReport:
    """Send every message of these files and folders to Redis. `progress` is told the file and the messages sent.

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
    bad: list[BadLine] = []
    sent = 0
    files = spool_files(paths, with_open=True)
    try:
        broker.open()
        for file in files:
            for batch in _batches(_frames(file, settings, bad)):
                broker.send(batch)
                sent += sum(frame.header.count for frame in batch)
                if progress is not None:
                    progress(file, sent)
    finally:
        broker.close()
    return ReplayReport(len(files), sent, tuple(bad))


def _frames(file: Path, settings: Settings, bad: list[BadLine]) -> Iterator[CutFrame]:
    run: list[Message] = []
    for line in read_spool(file):
        message = line.message
        if message is None:
            bad.append(BadLine(file, line.number, line.error or "unreadable"))
            continue
        if run and not (_follows(run[-1], message) and len(run) < settings.frame_messages):
            yield _frame(run)
            run = []
        run.append(message)
    if run:
        yield _frame(run)


def _follows(one: Message, other: Message) -> bool:
    return (other.producer_id, other.workflow_id, other.seq) == (
        one.producer_id,
        one.workflow_id,
        one.seq + 1,
    )


def _frame(run: list[Message]) -> CutFrame:
    record = run[0].record
    header_field, body_field = wire.encode_messages(
        run,
        campaign_id=record.get("campaign_id"),
        hostname=record.get("hostname", ""),
        pid=record.get("pid", 0),
        rank=record.get("rank"),
    )
    return CutFrame(wire.decode_header(header_field), header_field, body_field)


def _batches(frames: Iterator[CutFrame]) -> Iterator[list[CutFrame]]:
    batch: list[CutFrame] = []
    for frame in frames:
        batch.append(frame)
        if len(batch) == _PIPELINE:
            yield batch
            batch = []
    if batch:
        yield batch
