"""Time, in the two forms that a record needs.

Instants are UTC milliseconds since 1970 (MongoDB keeps no more); durations come from a monotonic clock, so that a
stepped or skewed wall clock never makes one negative.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MILLISECOND = timedelta(milliseconds=1)

#: Seconds of a clock that never goes back; only differences mean anything.
monotonic = time.perf_counter


def now_ms() -> int:
    """The present instant, in UTC milliseconds."""
    return time.time_ns() // 1_000_000


def to_datetime(ms: int) -> datetime:
    """An instant as an aware UTC datetime; raises `OverflowError` outside the years 1-9999."""
    return _EPOCH + timedelta(milliseconds=ms)


def from_datetime(moment: datetime) -> int:
    """An aware datetime as UTC milliseconds, rounded down."""
    return (moment - _EPOCH) // _MILLISECOND


def to_iso(ms: int) -> str:
    """An instant as ISO 8601 with milliseconds, such as `2026-11-20T14:03:00.250Z`."""
    second, rest = divmod(ms, 1000)
    return f"{_second_text(second)}.{rest:03d}Z"


@lru_cache(maxsize=8)
def _second_text(second: int) -> str:
    """The times of one line, and of the next, mostly are in the same second."""
    moment = to_datetime(second * 1000)
    return f"{moment.year:04d}-{moment:%m-%dT%H:%M:%S}"
