"""Values, as they were at the moment of the call.

- What cannot change (numbers, short text, None) is kept by reference and packed by the sender; everything else is
  converted and packed at once, so that a later change by the user's code does not reach the record.
- Foreign code is not called: no `repr`, no properties, no `to_dict`; an object may offer `to_provd_dict()`.
- Whatever a value does, recording it never raises.

Conversion: `datetime` with a zone, in whole milliseconds; without one, `date` and `time` as ISO text; `UUID`, `Path`
and `Decimal` as text; `Enum` as its value; sets as lists; dataclasses as dicts; numpy scalars as numbers; arrays,
tensors and data frames as a summary; anything else as its type.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from enum import Enum
from itertools import islice
from typing import Any

from provd.common import clock, wire

#: Immutable types that msgpack packs as they are.
_SCALARS = frozenset({int, float, bool, type(None)})

#: Text up to this length is kept by reference; longer text is packed at once, so that the buffer's size is known.
_SHORT_TEXT = 256

#: Longest text or bytes, most items of a container, deepest nesting and most items in all that a value takes.
TEXT_MAX = 65_536
ITEMS_MAX = 10_000
DEPTH_MAX = 16
WALK_MAX = 100_000

#: Immutable types whose subclasses are recorded as the type itself.
_PLAIN_BASES: tuple[Any, ...] = (int, float, str, bytes)

#: Modules whose objects may be large: recorded as type, shape and size.
_ARRAY_MODULES = frozenset(
    {"numpy", "torch", "jax", "jaxlib", "tensorflow", "pandas", "polars", "pyarrow", "scipy", "cupy"}
)

#: A row of values: by reference when none of them can change, else packed.
Frozen = tuple[Any, ...] | bytes


def freeze(values: tuple[Any, ...]) -> Frozen:
    """The values of one row, safe from later changes."""
    for value in values:
        kind = type(value)
        if kind not in _SCALARS and (kind is not str or len(value) > _SHORT_TEXT):
            return wire.pack([convert(item) for item in values])
    return values


def freeze_map(items: Mapping[str, Any]) -> bytes:
    """A map of values, packed."""
    return wire.pack(convert(dict(items)))


def convert(value: Any) -> Any:
    """A value of a record that says what `value` is."""
    return _Walk().convert(value, 0)


class _Walk:
    """One walk through a value. It ends: cycles run into `DEPTH_MAX`, wide ones into `WALK_MAX`."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = WALK_MAX

    def convert(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind in _SCALARS:
            return value
        if kind is str or kind is bytes:
            return value if len(value) <= TEXT_MAX else _cut(value)
        try:
            if kind is dict:
                return self._dict(value, depth)
            if kind is list or kind is tuple:
                return self._items(value, depth)
            return self._object(value, depth)
        except Exception as error:  # noqa: BLE001 - a value's own methods may raise anything
            return {"type": _type_name(value), "unreadable": type(error).__name__}

    def _room(self, size: int, depth: int) -> int:
        """How many of a container's items are recorded."""
        room = 0 if depth >= DEPTH_MAX else min(size, ITEMS_MAX, self._left)
        self._left -= room
        return room

    def _dict(self, value: Any, depth: int) -> Any:
        room = self._room(len(value), depth)
        items = {
            self._key(key): self.convert(item, depth + 1) for key, item in islice(value.copy().items(), room)
        }
        if room < len(value):
            items["…"] = f"{len(value) - room} more"
        return wire.pack_odd_map(items) if any(type(key) is tuple for key in items) else items

    def _key(self, key: Any) -> Any:
        if type(key) is str or type(key) in _SCALARS or type(key) is bytes:
            return key
        if type(key) is tuple:
            return tuple(self._key(part) for part in key)
        converted = self.convert(key, DEPTH_MAX)
        return converted if isinstance(converted, (str, int, float, bytes)) else _type_name(key)

    def _items(self, value: Any, depth: int) -> list[Any]:
        room = self._room(len(value), depth)
        items = [self.convert(item, depth + 1) for item in islice(value, room)]
        if room < len(value):
            items.append(f"… {len(value) - room} more")
        return items

    def _object(self, value: Any, depth: int) -> Any:
        if hasattr(type(value), "to_provd_dict"):
            return self.convert(value.to_provd_dict(), depth + 1)
        if isinstance(value, Enum):
            return self.convert(value.value, depth + 1)
        for base in _PLAIN_BASES:
            if isinstance(value, base):
                return self.convert(_as_base(base, value), depth + 1)
        if isinstance(value, dict):
            return self._dict(dict(value), depth)
        if isinstance(value, (list, tuple, set, frozenset)):
            return self._items(value, depth)
        if isinstance(value, datetime):
            return (
                value.isoformat() if value.tzinfo is None else clock.to_datetime(clock.from_datetime(value))
            )
        if isinstance(value, (date, time)):
            return value.isoformat()
        if isinstance(value, timedelta):
            return value.total_seconds()
        return self._foreign(value, depth)

    def _foreign(self, value: Any, depth: int) -> Any:
        """Types of modules that are known only when the program itself has imported them."""
        module, name = type(value).__module__.partition(".")[0], type(value).__name__
        if module in ("uuid", "pathlib", "decimal", "fractions"):
            return str(value)
        if module == "argparse" and name == "Namespace":
            return self._dict(vars(value), depth)
        fields = getattr(type(value), "__dataclass_fields__", None)
        if isinstance(fields, dict):
            return self._dict({field: getattr(value, field) for field in fields}, depth)
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(value, numpy.generic):
            return self.convert(value.item(), depth + 1)
        if module in _ARRAY_MODULES:
            return _summary(value)
        return {"type": _type_name(value)}


def _as_base(base: type, value: Any) -> Any:
    """The plain value of a subclass such as `numpy.float64`, without calling its overridden methods."""
    if base is bytes:
        return bytes.__getitem__(value, slice(None))
    return {int: int.__int__, float: float.__float__, str: str.__str__}[base](value)


def _cut(value: str | bytes) -> dict[str, Any]:
    return {"type": type(value).__name__, "length": len(value), "cut": value[:TEXT_MAX]}


def _summary(value: Any) -> dict[str, Any]:
    summary: dict[str, Any] = {"type": _type_name(value)}
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple):
        summary["shape"] = [int(side) for side in shape]
    for attribute in ("dtype", "nbytes"):
        found = getattr(value, attribute, None)
        if isinstance(found, int):
            summary[attribute] = found
        elif found is not None and not callable(found):
            summary[attribute] = str(found)
    return summary


def _type_name(value: Any) -> str:
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}"
