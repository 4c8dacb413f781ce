"""Numbers and times as people read them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

_MINUTE = 60
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR
_KIB = 1024

#: An integer beyond it is shown in hexadecimal.
_LARGEST = 10**40

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode

#: Characters of a value shown in a table's cell before it is cut; the terminal's width may cut it earlier.
CELL_CHARS = 200


def duration(seconds: float | None) -> str:
    """`4.2µs`, `350ms`, `12.3s`, `3m 05s`, `2h 04m`, `3d 04h`; empty for None."""
    if seconds is None:
        return ""
    if seconds <= 0:
        return "0s"
    if seconds < 0.9995:
        scaled, unit = (seconds * 1e3, "ms") if seconds >= 0.9995e-3 else (seconds * 1e6, "µs")
        return f"{scaled:.0f}{unit}" if scaled >= 9.95 else f"{scaled:.1f}{unit}"
    if seconds < _MINUTE - 0.05:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE}m {whole % _MINUTE:02d}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h {whole % _HOUR // _MINUTE:02d}m"
    return f"{whole // _DAY}d {whole % _DAY // _HOUR:02d}h"


def zone() -> str:
    """The name of the local time zone, said once per table."""
    return datetime.now().astimezone().strftime("%Z")


def moments(times: Iterable[datetime | None]) -> list[str]:
    """Local times in one form for a whole column: the date is left out when all are of today."""
    local = [None if moment is None else moment.astimezone() for moment in times]
    today = datetime.now().astimezone().date()
    dates = {moment.date() for moment in local if moment is not None}
    if dates <= {today}:
        form = "%H:%M:%S"
    elif all(date.year == today.year for date in dates):
        form = "%m-%d %H:%M"
    else:
        form = "%Y-%m-%d %H:%M"
    return ["" if moment is None else moment.strftime(form) for moment in local]


def moment(time: datetime | None) -> str:
    """One local time in full, with its zone."""
    return "" if time is None else time.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def time_of_day(time: datetime | None) -> str:
    """One local time without its date, for lines that come as things happen."""
    return "" if time is None else time.astimezone().strftime("%H:%M:%S")


def size(count: float) -> str:
    """Bytes, such as `256.0 KiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < _KIB:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= _KIB
    return f"{count:.1f} TiB"


def many(number: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def cell(value: Any) -> str:
    """A record's value in one short line of a table."""
    text = _text(value)
    return text if len(text) <= CELL_CHARS else text[: CELL_CHARS - 1] + "…"


def pairs(items: Mapping[str, Any] | None) -> str:
    """`used` or `generated` as `lr=0.1 epochs=3`."""
    return "" if not items else cell(" ".join(f"{name}={_text(value)}" for name, value in items.items()))


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict) and value.get("type") == "provd.File":
        return _file(value)
    shown = _shown(value)
    return shown if isinstance(shown, str) else _encode(shown)


def _shown(value: Any) -> Any:
    """A value for JSON's encoder, without what only a program needs to read it back."""
    if isinstance(value, dict):
        return {_text(key) if key is not None else "null": _shown(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown(item) for item in value]
    if isinstance(value, bytes):
        return f"<{many(len(value), 'byte')}>"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value}"
    if type(value) is int and abs(value) > _LARGEST:
        return hex(value)  # Python refuses to write very long ones in digits
    return value


def _file(value: Mapping[str, Any]) -> str:
    """The name of a `provd.File`, and enough of its checksum to tell it from another of that name."""
    name = " ".join(str(value.get("path", "")).rpartition("/")[2].split())
    checksum = value.get("sha256")
    return f"{name}@{checksum[:8]}" if isinstance(checksum, str) else name
