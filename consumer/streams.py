"""Frames out of the streams, and their acknowledgement.

Invariants:

- What this consumer has pending and not in hand is read again: from id 0 at the start, after `rewind` (Redis or the
  store was away) and after a claim. Then only new frames are asked for.
- One call reads at most 100 streams of one bucket, never blocks, and `COUNT` follows from a byte budget and the
  largest frames seen lately: 10,000 idle streams cost little, a flood does not fill memory.
- One reading takes about as many messages as it is told, and leaves the rest to other consumers. A round over many
  streams takes few readings all the same: where each of them has large frames, a reading takes more.
- Streams that had more to give are read on their own every other time, so one busy stream among thousands is read
  in large pieces and the others are not starved.
- A stream without our group is repaired or dropped; the others of its chunk are read all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, TypeAlias

from provd.common import names, wire
from provd.common.ranges import Ranges
from provd.consumer import scripts
from provd.consumer.broker import Broker, is_no_group, is_wrong_type
from provd.consumer.registry import Registry

log = logging.getLogger("provd.consumer")

#: Streams in one XREADGROUP: more cost the server more than they save.
CHUNK = 100

#: Ids in one acknowledgement; Lua unpacks a few thousand at most.
ACKNOWLEDGE_IDS = 1000

#: Streams whose lengths one script reads.
_LENGTHS_AT_ONCE = 500

#: Bytes of a frame, and messages in it, before one has been seen.
_FIRST_GUESS = 64 * 1024
_FIRST_GUESS_MESSAGES = 500.0

#: Bytes that a message takes at least.
_LEAST_MESSAGE = 8

#: Readings that a round over all streams takes at most, as far as memory allows.
_READINGS = 8

#: How fast the largest frame is forgotten, per reading, and how much was in it: that costs fairness alone.
_FORGET = 0.9
_FORGET_MESSAGES = 0.7

#: Rounds that one `read` makes while streams turn out to have had an empty backlog, or get their group back.
_ROUNDS = 3

#: By stream and producer: the numbers that are in the store and that the producer waits to hear of.
Receipts: TypeAlias = Mapping[str, Mapping[str, Ranges]]
_NO_RECEIPTS: Receipts = {}

_BACKLOG = "0"
_NEW = ">"


@dataclass(frozen=True, slots=True)
class Entry:
    """A stream entry as Redis has it; `fields` empty means it was deleted while pending."""

    stream: str
    entry_id: str
    fields: dict[bytes, bytes]
    #: How often it has been delivered, to whomever.
    deliveries: int = 1

    @property
    def size(self) -> int:
        """Bytes of the payload."""
        return sum(len(value) for value in self.fields.values())


class Streams:
    """Reads and acknowledges as one consumer of the group. Not for use by two threads at once."""

    def __init__(
        self,
        broker: Broker,
        registry: Registry,
        *,
        consumer: str,
        read_bytes: int,
        read_frames: int,
        read_messages: int,
    ) -> None:
        """`read_bytes`, `read_frames` and `read_messages` bound one `read`, roughly, and never below one frame."""
        self._broker = broker
        self._registry = registry
        self._consumer = consumer
        self._read_bytes = read_bytes
        self._read_frames = read_frames
        self._read_messages = read_messages
        self._frame_bytes = float(_FIRST_GUESS)
        #: Messages of the largest frame seen lately; 0 before one has been seen.
        self._frame_messages = 0.0
        self._cursors: dict[str, str] = {}
        self._hot: list[str] = []
        self._read_hot_next = False
        self._offset = 0
        self._unsettled = False

    def read(self) -> list[Entry]:
        """Frames from the next streams that have any; empty only when a whole round over all streams found none."""
        self._registry.refresh()
        if len(self._cursors) > len(self._registry):
            self._forget_ended()
        if self._hot and self._read_hot_next:
            self._read_hot_next = False
            most = self._frames_at_once
            hot = self._chunks(_by_bucket(self._hot), most)
            entries = self._read_group(next(_groups(hot, most)))
            if entries:
                return entries
        self._read_hot_next = True
        for _ in range(_ROUNDS):
            self._unsettled = False
            entries = self._read_round()
            if entries or not self._unsettled:
                return entries
        return []

    def _read_round(self) -> list[Entry]:
        at_most = int(self._read_bytes / self._frame_bytes)
        most = max(1, min(at_most, max(self._frames_at_once, -(-len(self._registry) // _READINGS))))
        chunks = self._chunks(self._registry.by_bucket, most)
        start, self._offset = _chunk_at(chunks, self._offset)
        for group in _groups(chunks[start:] + chunks[:start], most):
            self._offset += sum(map(len, group))
            entries = self._read_group(group)
            if entries:
                return entries
        return []

    def _forget_ended(self) -> None:
        known = set(self._registry.streams)
        self._cursors = {stream: cursor for stream, cursor in self._cursors.items() if stream in known}
        self._hot = [stream for stream in self._hot if stream in known]

    def start_over(self) -> None:
        """Redis may be another than it was: look again at what there is, and at what is pending under our name."""
        self._registry.expire()
        self.rewind()

    def rewind(self, stream: str | None = None) -> None:
        """Read what is pending under our name again, of one stream or of all. Nothing may be in hand."""
        if stream is None:
            self._cursors.clear()
        else:
            self._cursors.pop(stream, None)

    def acknowledge(
        self, entries: Iterable[Entry], receipts: Receipts = _NO_RECEIPTS, *, store_id: str = ""
    ) -> None:
        """Acknowledge and delete entries, each stream's in one step. Raises `BrokerUnavailable`; may be repeated.

        `receipts` are the numbers in the store `store_id` that their producers wait to hear of. They go with the first step of
        their stream: a receipt is true as soon as the store has the messages.
        """
        commands = []
        for stream, all_ids in ids_by_stream(entries).items():
            stored = names.WorkflowKeys.of_stream(stream).stored
            noted = [part for one in receipts.get(stream, {}).items() for part in (one[0], one[1].text)]
            noted = [store_id, *noted] if noted else []
            for ids in _pieces(all_ids, ACKNOWLEDGE_IDS):
                commands.append(
                    ("EVAL", scripts.ACKNOWLEDGE, 2, stream, stored, names.GROUP, len(ids), *ids, *noted)
                )
                noted = []
        for reply in self._broker.run(commands):
            self._broker.sound(reply)

    def acknowledge_spooled(self, taken: Iterable[tuple[Entry, str | None, Ranges]]) -> None:
        """Acknowledge and delete frames that are on the consumer's disk now, and note their producers' numbers."""
        commands = [
            (
                "EVAL", scripts.SPOOLED, 2, entry.stream, names.WorkflowKeys.of_stream(entry.stream).spooled,
                names.GROUP, entry.entry_id, producer_id or "", numbers.text,
            )
            for entry, producer_id, numbers in taken
        ]  # fmt: skip
        for reply in self._broker.run(commands):
            self._broker.sound(reply)

    def put_aside(self, newer: Iterable[tuple[Entry, int]]) -> None:
        """Leave frames of later schemas pending under a name of their own: a consumer that reads the schema takes them
        over, and no other is given them again.
        """
        by_schema: dict[int, list[Entry]] = {}
        for entry, schema in newer:
            by_schema.setdefault(schema, []).append(entry)
        commands = [
            ("XCLAIM", stream, names.GROUP, f"newer:{schema}", 0, *ids, "JUSTID")
            for schema, entries in by_schema.items()
            for stream, all_ids in ids_by_stream(entries).items()
            for ids in _pieces(all_ids, ACKNOWLEDGE_IDS)
        ]
        for reply in self._broker.run(commands):
            self._broker.sound(reply)

    def lengths(self) -> dict[str, int]:
        """Entries in each stream, pending ones included."""
        chunks = self._registry.pieces(_LENGTHS_AT_ONCE)
        replies = self._broker.run([("EVAL", scripts.LENGTHS, len(chunk), *chunk) for chunk in chunks])
        return {
            stream: length
            for chunk, reply in zip(chunks, replies, strict=True)
            for stream, length in zip(chunk, self._broker.sound(reply), strict=True)
            if length >= 0
        }

    # --- one call ---------------------------------------------------------------------------------------------

    @property
    def _frames_at_once(self) -> int:
        """Frames that one reading takes, if they are as large as the largest seen lately."""
        messages = self._frame_messages or _FIRST_GUESS_MESSAGES
        frames = min(self._read_bytes / self._frame_bytes, self._read_messages / messages)
        return max(1, int(frames))

    def _chunks(self, by_bucket: list[list[str]], most: int) -> list[Sequence[str]]:
        return [piece for bucket in by_bucket for piece in _pieces(bucket, min(CHUNK, most))]

    def _read_group(self, chunks: list[Sequence[str]]) -> list[Entry]:
        streams = sum(len(chunk) for chunk in chunks)
        frames = min(self._frames_at_once, self._read_frames)
        count = max(1, frames // streams)
        replies = self._broker.run([self._command(chunk, count) for chunk in chunks])
        entries: list[Entry] = []
        again: list[Entry] = []
        for chunk, reply in zip(chunks, replies, strict=True):
            if is_no_group(reply) or is_wrong_type(reply):
                self._repair(chunk)
            else:
                self._take(self._broker.sound(reply) or (), count, entries, again)
        self._learn([*entries, *again], chunks, count)
        return [*self._with_deliveries(again), *entries] if again else entries

    def _with_deliveries(self, again: list[Entry]) -> list[Entry]:
        """Frames of our backlog, which have been delivered before, with how often."""
        by_stream = ids_by_stream(again)
        replies = self._broker.run(
            [
                (
                    "EVAL",
                    scripts.DELIVERIES,
                    1,
                    stream,
                    names.GROUP,
                    self._consumer,
                    ids[0],
                    ids[-1],
                    len(ids),
                )
                for stream, ids in by_stream.items()
            ]
        )
        counts = {
            (stream, flat[index].decode()): flat[index + 1]
            for stream, flat in zip(by_stream, replies, strict=True)
            if isinstance(flat, list)
            for index in range(0, len(flat), 2)
        }
        return [replace(one, deliveries=counts.get((one.stream, one.entry_id), 1)) for one in again]

    def _command(self, chunk: Sequence[str], count: int) -> tuple[Any, ...]:
        cursors = [self._cursors.get(stream, _BACKLOG) for stream in chunk]
        return (
            "XREADGROUP", "GROUP", names.GROUP, self._consumer, "COUNT", count, "STREAMS", *chunk, *cursors,
        )  # fmt: skip

    def _take(self, reply: Iterable[Any], count: int, new: list[Entry], again: list[Entry]) -> None:
        """Sort an answer's frames into those that are new and those of our backlog."""
        for key, items in reply:
            stream = key.decode("utf-8", "replace")
            is_backlog = self._cursors.get(stream, _BACKLOG) != _NEW
            taken = again if is_backlog else new
            for entry_id, pairs in items:
                taken.append(Entry(stream, entry_id.decode(), _fields(pairs)))
            if is_backlog:
                # An answer shorter than asked for is the end of the backlog.
                self._cursors[stream] = items[-1][0].decode() if len(items) >= count else _NEW
                self._unsettled = True

    def _learn(self, entries: list[Entry], chunks: list[Sequence[str]], count: int) -> None:
        if entries:
            largest = max(entries, key=lambda entry: entry.size)
            self._frame_bytes = max(float(largest.size), self._frame_bytes * _FORGET, 1024.0)
            self._frame_messages = max(_messages_in(largest), self._frame_messages * _FORGET_MESSAGES, 1.0)
        asked = {stream for chunk in chunks for stream in chunk}
        full = [stream for stream, ids in ids_by_stream(entries).items() if len(ids) >= count]
        self._hot = [stream for stream in self._hot if stream not in asked] + full
        del self._hot[CHUNK:]

    def _repair(self, chunk: Sequence[str]) -> None:
        """After NOGROUP, which does not say reliably for which stream: look at each one."""
        keys = [names.WorkflowKeys.of_stream(stream) for stream in chunk]
        replies = self._broker.run(
            [("EVAL", scripts.REPAIR, 2, k.registry, k.stream, names.GROUP) for k in keys]
        )
        self._unsettled = True
        for stream, reply in zip(chunk, replies, strict=True):
            if reply != 1 or self._is_foreign(stream):
                log.info("stream dropped: stream=%s", stream)
                self._registry.drop(stream)
                self._cursors.pop(stream, None)
                self._hot = [key for key in self._hot if key != stream]

    def _is_foreign(self, stream: str) -> bool:
        return is_wrong_type(self._broker.run([("XLEN", stream)])[0])


def ids_by_stream(entries: Iterable[Entry]) -> dict[str, list[str]]:
    """Entry ids of each stream."""
    ordered = sorted(entries, key=lambda entry: entry.stream)
    return {
        stream: [entry.entry_id for entry in group]
        for stream, group in groupby(ordered, lambda entry: entry.stream)
    }


def _groups(chunks: list[Sequence[str]], most: int) -> Iterator[list[Sequence[str]]]:
    """Chunks that go into one pipeline: of at most so many streams together."""
    group: list[Sequence[str]] = []
    size = 0
    for chunk in chunks:
        if group and size + len(chunk) > most:
            yield group
            group, size = [], 0
        group.append(chunk)
        size += len(chunk)
    if group:
        yield group


def _chunk_at(chunks: list[Sequence[str]], offset: int) -> tuple[int, int]:
    """The chunk with the stream at this place of an endless round, and the place of the chunk's first stream."""
    total = sum(map(len, chunks))
    place = 0
    for index, chunk in enumerate(chunks):
        if offset % total < place + len(chunk):
            return index, place
        place += len(chunk)
    return 0, 0


def _messages_in(entry: Entry) -> int:
    """How many messages a frame says it has, or 0 where it does not say; a lie costs no more than small readings."""
    try:
        count = wire.decode_header(entry.fields.get(names.HEADER_FIELD, b"")).count
    except Exception:  # noqa: BLE001 - whatever is wrong with it is found where it is decoded
        return 0
    return min(count, entry.size // _LEAST_MESSAGE)


def _by_bucket(streams: Iterable[str]) -> list[list[str]]:
    buckets: dict[str, list[str]] = {}
    for stream in streams:
        buckets.setdefault(names.WorkflowKeys.of_stream(stream).registry, []).append(stream)
    return list(buckets.values())


def _fields(pairs: Sequence[bytes] | None) -> dict[bytes, bytes]:
    return dict(zip(pairs[::2], pairs[1::2], strict=True)) if pairs else {}


def _pieces(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (items[start : start + size] for start in range(0, len(items), size))
