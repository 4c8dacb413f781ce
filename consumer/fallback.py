"""The consumer's own spool: where frames go when the store is away and Redis fills up.

- A frame is acknowledged only after all it held is on the disk (fsync); its numbers are noted in Redis in the same
  step that deletes it, so the books show them as spooled.
- Messages go into spool files. What belongs in quarantine, be it a flaw, a ruined frame or a message that a line
  cannot hold, goes into a file beside them (`setaside`): nothing but frames of a later schema stays in a full Redis.
- What has been spooled is brought back by `returning`; files are sealed at a size, so that they go one by one.
- The ceiling is for all of them together, those of earlier outages and those beside them included. Nothing is written
  to a file that `returning` may have found: `close` lets go of each, also of one that cannot be sealed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from provd.common.ranges import Ranges
from provd.common.record import Message
from provd.common.spool import SpoolWriter, encode_checked
from provd.consumer.batch import Batch, refused_items
from provd.consumer.setaside import SetAside
from provd.consumer.streams import Entry, Streams
from provd.store.interface import Quarantined, Refusal

log = logging.getLogger("provd.consumer")

#: Bytes of frames after which a file is sealed.
_FILE_BYTES = 64 << 20


class Fallback:
    """Spools frames."""

    def __init__(
        self,
        streams: Streams,
        *,
        folder: Path,
        name: str,
        hostname: str,
        ceiling_bytes: int,
        free_floor: float,
    ) -> None:
        self._streams = streams
        self._folder = folder
        self._name = name
        self._hostname = hostname
        self._ceiling_bytes = ceiling_bytes
        self._free_floor = free_floor
        self._writer: SpoolWriter | None = None
        self._set_aside = SetAside(folder, name, free_floor=free_floor)
        self._in_file = 0

    def take(
        self, entries: Iterable[Entry], *, held_bytes: int = 0, condemned: str | None = None
    ) -> tuple[Batch, int]:
        """Spool and acknowledge frames; gives what of them was not spooled, and the number of messages that were: a
        reading holds many batches' worth, and is in memory decoded one frame at a time.

        `held_bytes` are in the spool already. `condemned` is why to quarantine all of them unread. Raises `SpoolError`
        and `BrokerUnavailable`: what was not acknowledged is still in Redis.
        """
        taken: list[tuple[Entry, str | None, Ranges]] = []
        whole, spooled = Batch(), 0
        writer = self._open(held_bytes)
        for entry in entries:
            batch = Batch()
            if condemned is None:
                batch.add(entry)
            else:
                batch.condemn(entry, condemned)
            if batch.newer:
                whole.newer += batch.newer
                continue
            batch.quarantined += refused_items(_spool(writer, batch.messages))
            if batch.quarantined:
                writer.reserve(sum(len(piece.raw) for piece in batch.quarantined))
                self._set_aside.write(batch.quarantined)
            taken.append((entry, *_numbers(batch.messages, batch.quarantined)))
            whole.quarantined += batch.quarantined
            spooled += len(batch.messages)
            self._in_file += entry.size
        writer.sync()
        self._set_aside.sync()
        self._streams.acknowledge_spooled(taken)
        if self._in_file > _FILE_BYTES:
            self._seal()
        return whole, spooled

    def close(self) -> None:
        """Seal the files in hand. Raises `SpoolError`; they are let go of all the same."""
        try:
            self._seal()
        finally:
            self._writer = None

    def _seal(self) -> None:
        self._in_file = 0
        try:
            self._set_aside.close()
        finally:
            if self._writer is not None:
                self._writer.close()

    def _open(self, held_bytes: int) -> SpoolWriter:
        if self._writer is None:
            self._writer = SpoolWriter(
                self._folder,
                self._name,
                ceiling_bytes=max(0, self._ceiling_bytes - held_bytes),
                free_floor=self._free_floor,
                hostname=self._hostname,
            )
        return self._writer


def _spool(writer: SpoolWriter, messages: Sequence[Message]) -> list[Refusal]:
    """Write messages in one go, or one by one where one of them cannot be a line; gives those that cannot."""
    if not messages:
        return []
    try:
        writer.append(b"".join(map(encode_checked, messages)))
    except (ValueError, OverflowError, TypeError, RecursionError) as error:
        if len(messages) == 1:
            return [Refusal(messages[0], f"cannot be spooled: {error}")]
        return [refusal for message in messages for refusal in _spool(writer, [message])]
    return []


def _numbers(messages: Iterable[Message], pieces: Iterable[Quarantined]) -> tuple[str | None, Ranges]:
    """Whose numbers are on the disk now, and which."""
    producers = {message.producer_id for message in messages} | {piece.producer_id for piece in pieces}
    spans = [(message.seq, message.seq) for message in messages]
    spans += [(piece.first_seq or 1, piece.last_seq or 0) for piece in pieces]
    return next(iter(producers - {None}), None), Ranges.of(spans)
