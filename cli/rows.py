"""Long answers: cut at a limit, and said so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from provd.cli import human, output
from provd.common.record import Record


def limited(rows: Iterable[Record], limit: int) -> Iterator[Record]:
    """The first `limit` rows (0: all). `rows` holds one more than wanted where there are more, which is then said."""
    for number, row in enumerate(rows):
        if limit and number == limit:
            output.say(f"only the first {human.many(limit, 'row')} shown: there are more (--limit 0 for all)")
            return
        yield row
