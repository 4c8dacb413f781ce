"""The spool lines of a channel's rows, for `durability: disk`: a line says what its row says.

- A row of plain values becomes a line from the very values it was packed from, without a way over a record: that is
  most of the cost of a call. Every other row is read back as a consumer would read it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from provd.common import ids, values, wire
from provd.common.record import STATUSES
from provd.common.spool import encode_line, time_json
from provd.common.wire import Header, Shape
from provd.producer.framing import Origin

#: Shapes whose beginnings are kept; a program with ever new ones starts afresh.
_HEADS_MAX = 1_000


class Lines:
    """Writes the lines of one channel."""

    def __init__(self, origin: Origin) -> None:
        self._producer_id = origin.producer_id
        self._header = origin.header(1, 1)
        self._tail = _tail(self._header)
        #: By identity, and the shape itself to keep that identity taken.
        self._heads: dict[int, tuple[str, Shape]] = {}

    def plain(self, seq: int, row: tuple[Any, ...], shape: Shape) -> bytes | None:
        """The line of a task's row of plain values; None where it takes a closer look. Raises `OverflowError` for a
        time that no line can hold.
        """
        _, task, parent, started_at, duration, rank, used, generated = row
        if shape.used_names is None or type(task) is not int or type(started_at) is not int:
            return None
        parts = [
            self._head(shape),
            f'"task_id":"{ids.task_id(self._producer_id, task)}","status":"{STATUSES[rank]}"',
        ]
        if parent is not None:
            if type(parent) is int:
                parent = ids.task_id(self._producer_id, parent)
            parts.append(f',"parent_task_id":{values.to_json(parent)}')
        if duration is not None:
            if type(duration) is not float or not math.isfinite(duration):
                return None
            ended_at = started_at + round(duration * 1000)
            parts.append(f',"duration":{duration!r},"ended_at":{time_json(ended_at)}')
        data = {"used": dict(zip(shape.used_names, used))}
        if generated is not None:
            if shape.generated_names is None:
                return None
            data["generated"] = dict(zip(shape.generated_names, generated))
        parts.append(
            f',{values.to_json(data)[1:-1]},"started_at":{time_json(started_at)}{self._tail}{seq}}}\n'
        )
        return "".join(parts).encode()

    def of(self, row: bytes, shapes: Sequence[Shape], seq: int) -> bytes | None:
        """The line of any row; None for one that no line can hold."""
        try:
            return encode_line(wire.decode_row(row, shapes, self._header, seq))
        except wire.UNPACK_ERRORS:
            return None

    def _head(self, shape: Shape) -> str:
        known = self._heads.get(id(shape))
        if known is None:
            if len(self._heads) >= _HEADS_MAX:
                self._heads = {}
            fixed = values.to_json(dict(shape.fixed))[:-1]
            known = self._heads[id(shape)] = (fixed + "," if shape.fixed else fixed, shape)
        return known[0]


def _tail(header: Header) -> str:
    """What every task's line ends with, up to its number."""
    fields = wire.from_header(header, 1)
    del fields["seq"]
    fields["kind"] = "task"
    return f',{values.to_json(fields)[1:-1]},"seq":'
