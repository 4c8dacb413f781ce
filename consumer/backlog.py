"""What waits in Redis: how many frames of each workflow, how many of them are delivered, and how old the oldest is.

- Frames leave their stream when they are stored, so the first entry of a stream is its oldest unstored frame. Its id
  is Redis' own time: no other clock takes part.
- Frames stay in Redis: a script gives the id alone. Empty streams are not asked twice.
- A consumer looks every few seconds, and spends at most a twentieth of its time on it, however many streams there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from provd.common import names
from provd.consumer.broker import Broker
from provd.consumer.pace import Pace
from provd.consumer.progress import Tally

#: Seconds between two looks, at least.
_PAUSE_S = 4.0

#: Streams in one request.
_AT_ONCE = 500

#: KEYS stream. The id of its first entry, without the entry.
_FIRST_ID = """
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
return first[1] and first[1][1] or false
"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The unstored frames of one stream; `oldest_s` is None where nobody may say."""

    frames: int
    pending: int = 0
    oldest_s: float | None = None


class Backlog:
    """Looks at what waits, now and then."""

    def __init__(self, broker: Broker, tally: Tally) -> None:
        self._broker = broker
        self._tally = tally
        self._pace = Pace(_PAUSE_S)

    def look(self, lengths: Mapping[str, int]) -> None:
        """If it is time, look closely at streams of known lengths. Raises `BrokerUnavailable`."""
        if self._pace.is_due:
            with self._pace.doing():
                self._look(lengths)

    def _look(self, lengths: Mapping[str, int]) -> None:
        found = look_at(self._broker, lengths).values()
        memory = self._broker.memory()
        self._tally.see_redis(
            pending=sum(one.pending for one in found),
            oldest_s=max((one.oldest_s or 0.0 for one in found), default=0.0),
            memory_used=memory.used,
            memory_limit=memory.limit,
        )


def look_at(broker: Broker, lengths: Mapping[str, int]) -> dict[str, Waiting]:
    """A closer look at streams of known lengths. Raises `BrokerUnavailable`."""
    found = {stream: Waiting(length) for stream, length in lengths.items()}
    filled = [stream for stream, length in lengths.items() if length]
    for start in range(0, len(filled), _AT_ONCE):
        part = filled[start : start + _AT_ONCE]
        pending = broker.run([("XPENDING", stream, names.GROUP) for stream in part])
        first = broker.run([("EVAL", _FIRST_ID, 1, stream) for stream in part])
        now = broker.now_ms()
        for stream, delivered, entry_id in zip(part, pending, first, strict=True):
            oldest = entry_id if isinstance(entry_id, bytes) else _first_pending(delivered)
            found[stream] = Waiting(lengths[stream], _pending(delivered), _age(oldest, now))
    return found


def read_lengths(broker: Broker, streams: list[str]) -> dict[str, int]:
    """Entries in each stream; what is no stream (any more) is left out. Raises `BrokerUnavailable`."""
    lengths: dict[str, int] = {}
    for start in range(0, len(streams), _AT_ONCE):
        part = streams[start : start + _AT_ONCE]
        replies = broker.run([("XLEN", stream) for stream in part])
        lengths |= {stream: reply for stream, reply in zip(part, replies, strict=True) if type(reply) is int}
    return lengths


def _pending(reply: object) -> int:
    """The count in an answer to XPENDING, which clients give in different shapes; 0 for an error."""
    if isinstance(reply, Mapping):
        return int(reply.get("pending", 0))
    return int(reply[0]) if isinstance(reply, (list, tuple)) and reply else 0


def _first_pending(reply: object) -> object:
    """The oldest pending entry: as good as the first of all, for a user who may not look at entries."""
    if isinstance(reply, Mapping):
        return reply.get("min")
    return reply[1] if isinstance(reply, (list, tuple)) and len(reply) > 1 else None


def _age(entry_id: object, now_ms: int) -> float | None:
    milliseconds = entry_id.partition(b"-")[0] if isinstance(entry_id, bytes) else b""
    return max(0, now_ms - int(milliseconds)) / 1000 if milliseconds.isdigit() else None
