"""Long answers: cut at a limit, and said so; and what went by in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from provd.cli import output
from provd.common.record import Record


class Seen:
    """What has gone by: how many rows, and which fields they had."""

    def __init__(self) -> None:
        self.rows = 0
        self.fields: set[str] = set()

    def watching(self, rows: Iterable[Record]) -> Iterator[Record]:
        """The same rows."""
        for row in rows:
            self.rows += 1
            self.fields.update(row)
            yield row


def limited(rows: Iterable[Record], limit: int) -> Iterator[Record]:
    """The first `limit` rows (0: all). `rows` holds one more than wanted where there are more, which is then said."""
    for number, row in enumerate(rows):
        if limit and number == limit:
            first = "row" if limit == 1 else f"{limit:,} rows"
            output.say(f"only the first {first} shown: there are more (--limit 0 for all)")
            return
        yield row
