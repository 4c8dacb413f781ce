"""Times and spans of time as people write them: `2026-11-20`, `2026-11-20T14:00Z`, `2h ago`, `1h30m`, `90`.

A time without a zone is local, as it is in the tables.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

from provd.common import clock
from provd.common.errors import UsageError

#: One part of a span, and an ISO time, as the grammar of `provd.query.where` takes them, too.
SPAN = r"(?:\d+(?:\.\d+)?(?:us|µs|μs|ms|s|m|h|d|w))+(?!\w)"
TIME = r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:[Zz]|[+-]\d\d:\d\d)?)?(?![\w:])"

#: The two letters for micro look alike, and tables have the first.
_SECONDS = {
    "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0,
}  # fmt: skip
_PARTS = re.compile(r"(\d+(?:\.\d+)?)(us|µs|μs|ms|s|m|h|d|w)")
_SPAN = re.compile(SPAN)
_TIME = re.compile(TIME)
_NUMBER = re.compile(r"\d+(?:\.\d+)?")

_TIME_HELP = "write 2026-11-20, 2026-11-20T14:00, 2026-11-20T14:00Z or 2h (ago)"


def parse_span(text: str, what: str) -> float:
    """Seconds: `90`, `1.5s`, `300ms`, `1h30m`; raises `UsageError` that names `what`."""
    written = text.strip().lower()
    seconds = None
    if _NUMBER.fullmatch(written):
        seconds = float(written)
    elif _SPAN.fullmatch(written):
        seconds = span_seconds(written)
    if seconds is None or seconds == float("inf"):
        raise UsageError(f"{what} {text!r} is not a time span; write 90, 1.5s, 300ms or 1h30m")
    return seconds


def span_seconds(text: str) -> float:
    """The seconds of a text that fits `SPAN`."""
    return sum(float(number) * _SECONDS[unit] for number, unit in _PARTS.findall(text.lower()))


def parse_moment(text: str, what: str, now: datetime | None = None) -> datetime:
    """A time, or how long ago it was; raises `UsageError` that names `what`."""
    written = " ".join(text.split())
    ago = written.lower().removesuffix(" ago").strip()
    if _SPAN.fullmatch(ago):
        return before(span_seconds(ago), what, now)
    if written.lower() == "now":
        return present(now)
    if not _TIME.fullmatch(written):
        raise UsageError(f"{what} {text!r} is not a time; {_TIME_HELP}")
    return read_iso(written, what)


def read_iso(text: str, what: str) -> datetime:
    """The moment of a text that fits `TIME`; raises `UsageError` for one that no calendar has."""
    written = re.sub(r"[Zz]$", "+00:00", text)
    written = re.sub(r"\.(\d+)", lambda found: "." + found[1].ljust(6, "0"), written)
    try:
        return datetime.fromisoformat(written).astimezone(timezone.utc)
    except (ValueError, OverflowError, OSError):
        raise UsageError(f"{what} {text!r} is not a time; {_TIME_HELP}") from None


def present(now: datetime | None = None) -> datetime:
    """The present, by this machine's clock unless it is given."""
    return now if now is not None else clock.to_datetime(clock.now_ms())


def before(seconds: float, what: str, now: datetime | None = None) -> datetime:
    """The moment so many seconds ago; raises `UsageError` for one before all calendars."""
    try:
        return present(now) - timedelta(seconds=seconds)
    except OverflowError:
        raise UsageError(f"{what}: that is longer ago than the calendar goes") from None
