"""Frames cut anew, of messages that were read back from a spool.

- A frame holds messages of one producer and workflow whose numbers follow each other, and is no larger than those of
  the program, in messages and in bytes.
- A message that fits into no frame keeps none of the others from theirs.
- Memory is bounded by one run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from provd.common import wire
from provd.producer.framing import CutFrame, Limits

if TYPE_CHECKING:
    from provd.common.record import Message
    from provd.common.spool import SpoolLine

#: What a line that was changed on its disk may come to: it reads as a message, and is none that we wrote.
_UNFIT = (ValueError, TypeError, LookupError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True)
class Run:
    """Messages that follow each other, and the numbers of their lines."""

    messages: tuple[Message, ...]
    lines: tuple[int, ...]

    @property
    def first(self) -> Message:
        """The message it begins with."""
        return self.messages[0]

    def frames(
        self, campaign_id: str | None, tell: Callable[[int, Exception], None], *, receipt: bool = False
    ) -> Iterator[CutFrame]:
        """The run as a frame; where one of the messages fits in none, as several.

        `tell` is given the line of such a message, and what is wrong with it.
        """
        try:
            yield self._frame(campaign_id, receipt)
            return
        except _UNFIT as error:
            if len(self.messages) == 1:
                tell(self.lines[0], error)
                return
        half = len(self.messages) // 2
        for part in (slice(half), slice(half, None)):
            yield from Run(self.messages[part], self.lines[part]).frames(campaign_id, tell, receipt=receipt)

    def _frame(self, campaign_id: str | None, receipt: bool) -> CutFrame:  # noqa: FBT001
        record = self.first.record
        header_field, body_field = wire.encode_messages(
            self.messages,
            campaign_id=campaign_id,
            hostname=record.get("hostname", ""),
            pid=record.get("pid", 0),
            rank=record.get("rank"),
            receipt=receipt,
        )
        return CutFrame(wire.decode_header(header_field), header_field, body_field)


def runs(lines: Iterable[SpoolLine], limits: Limits) -> Iterator[Run]:
    """The messages of some lines as runs, each small enough for a frame; lines without one are passed over."""
    messages: list[Message] = []
    numbers: list[int] = []
    size = 0
    for line in lines:
        message = line.message
        if message is None:
            continue
        full = len(messages) >= limits.messages or size + line.size > limits.size
        if messages and (full or not _follows(messages[-1], message)):
            yield Run(tuple(messages), tuple(numbers))
            messages, numbers, size = [], [], 0
        messages.append(message)
        numbers.append(line.number)
        size += line.size
    if messages:
        yield Run(tuple(messages), tuple(numbers))


def _follows(one: Message, other: Message) -> bool:
    return (other.producer_id, other.workflow_id, other.seq) == (
        one.producer_id,
        one.workflow_id,
        one.seq + 1,
    )
