"""Bringing a spool into the broker: the same messages, in frames cut anew.

- Seqs are kept, so replaying twice, or what Redis already has, changes nothing in the store (G3).
- A line that cannot be read is reported with its file and number, and passed over.
- Files are left as they are: that Redis has a message does not yet mean that the store has it.
- Memory is bounded by one pipeline of frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from provd.common import wire
from provd.common.errors import BrokerUnavailable
from provd.common.passwords import mask_url
from provd.common.record import Message
from provd.common.settings import Settings
from provd.common.spool import BadLine, SpoolLine
from provd.common.spool_reader import SpoolFile, SpoolReader
from provd.producer.broker import Broker
from provd.producer.framing import CutFrame

#: Frames handed to Redis in one pipeline, and bytes of lines in them.
_PIPELINE = 16
_PIPELINE_BYTES = 16 << 20


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
    reader = SpoolReader()
    sent = 0
    try:
        broker.open()
        for file in reader.read(paths):
            for batch in _batches(_frames(reader, file, settings)):
                broker.send(batch)
                sent += sum(frame.header.count for frame in batch)
                if progress is not None:
                    progress(file.path, sent)
    finally:
        broker.close()
    return ReplayReport(reader.files, sent, tuple(reader.bad), reader.bad_count, reader.open, reader.gone)


def _frames(reader: SpoolReader, file: SpoolFile, settings: Settings) -> Iterator[CutFrame]:
    run: list[SpoolLine] = []
    size = 0
    for line in reader.lines(file):
        full = len(run) >= settings.frame_messages or size + line.size > settings.frame_bytes
        if run and (full or not _follows(run[-1], line)):
            yield from _framed(reader, file, run)
            run, size = [], 0
        run.append(line)
        size += line.size
    yield from _framed(reader, file, run)


def _framed(reader: SpoolReader, file: SpoolFile, run: Sequence[SpoolLine]) -> Iterator[CutFrame]:
    """The lines as a frame; where one of them fits in none, as several."""
    if not run:
        return
    try:
        yield _frame([line.message for line in run if line.message is not None])
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        if len(run) == 1:
            reader.tell(file, run[0].number, f"does not fit into a frame: {error}")
            return
        half = len(run) // 2
        yield from _framed(reader, file, run[:half])
        yield from _framed(reader, file, run[half:])


def _follows(line: SpoolLine, next_line: SpoolLine) -> bool:
    one, other = line.message, next_line.message
    return (
        one is not None
        and other is not None
        and (other.producer_id, other.workflow_id, other.seq)
        == (one.producer_id, one.workflow_id, one.seq + 1)
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
    size = 0
    for frame in frames:
        batch.append(frame)
        size += frame.size
        if len(batch) == _PIPELINE or size >= _PIPELINE_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
