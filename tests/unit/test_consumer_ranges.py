"""The note of spooled numbers, as consumers write it into Redis."""

from __future__ import annotations

from provd.common.ranges import Ranges
from provd.consumer.beats import parse_ranges


def test_a_note_reads_as_ranges() -> None:
    assert parse_ranges(b"1-500,701-900,501-600") == Ranges.of([(1, 600), (701, 900)])


def test_an_empty_or_senseless_note_is_an_empty_set() -> None:
    assert parse_ranges(b"") == parse_ranges(b"-,x-1,\xff") == Ranges()
