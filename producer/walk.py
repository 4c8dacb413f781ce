"""The walk through a value that is not plain: conversion, caps, cycles and masking in one pass.

A part that is not recorded as it is says so:

| recorded                                             | means                                                     |
|------------------------------------------------------|-----------------------------------------------------------|
| `{"type", "length", "cut"}`                          | a text, bytes or container over its cap; `cut` is its head|
| `{"type", "length", "too_deep": true}`               | a container inside too many others                        |
| `{"type", "length", "cycle": n}`                     | the same container as the one n levels up                 |
| `{"type", "bits"}`                                   | an int too long to keep                                   |
| `{"type", "shape", "dtype", "bytes", "object"}`      | an array, tensor or data frame                            |
| `{"type", "object"}`                                 | an object; `object` is the same for the same object       |
| `{..., "version": n}`                                | … as the n-th task that generated it left it              |
| `{"type", "unreadable": "ValueError"}`               | a value whose own code raised when it was asked           |
| `"***"`                                              | a credential                                              |

- Methods of the user's are not called, except `to_provd_dict` and registered functions.
- It ends: containers inside one another, items in all and characters in all are bounded.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from enum import Enum
from functools import partial
from itertools import islice
from typing import Any

from provd.common import clock, packing
from provd.producer import objects
from provd.producer.interrupts import pass_on
from provd.producer.rules import WALK_MAX, Rules
from provd.producer.secrets import EDGE, hide

#: Types whose values are recorded as they are.
_PLAIN = frozenset({float, bool, type(None)})

#: Types that sort among themselves.
_SORTABLE = (
    frozenset({str}),
    frozenset({int}),
    frozenset({int, float}),
    frozenset({float}),
    frozenset({bytes}),
)

_INT64 = range(-(1 << 63), 1 << 63)

#: Longest text of a key, and the longest once the characters of the row are used up; a longer one is cut and numbered.
_KEY_MAX = 1024
_KEY_MIN = 64

#: Standard types recorded as their text, by module, so that none is imported for this.
_AS_TEXT = (("uuid", "UUID"), ("pathlib", "PurePath"), ("decimal", "Decimal"), ("fractions", "Fraction"))

_AS_THEIR_ATTRIBUTES = (("argparse", "Namespace"), ("types", "SimpleNamespace"))


class Walk:
    """One walk, through the values of one row."""

    __slots__ = ("_items_left", "_made", "_path", "_rules", "_text_left")

    def __init__(self, rules: Rules, *, made: bool = False) -> None:
        """`made`: they are what a task hands on."""
        self._rules = rules
        #: The numbers of the objects that are handed on.
        self._made: set[int] | None = set() if made else None
        self._items_left = WALK_MAX
        self._text_left = 4 * rules.message_max
        #: The objects that this one is inside of, by identity (all are alive while they stand here), and their depths.
        self._path: dict[int, int] = {}

    def convert(self, value: Any, depth: int = 0) -> Any:
        """What the record says of a value, in types that can be packed."""
        kind = type(value)
        if kind is float or kind is bool or value is None:
            return value
        if kind is str:
            return self._text(value)
        if kind is int:
            return self._int(value)
        try:
            if kind is bytes:
                return self._bytes(value)
            if kind is dict or kind is list or kind is tuple:
                return self._container(value, kind, depth)
            return self._object(value, kind, depth)
        except Exception as error:  # noqa: BLE001 - a value's own methods may raise anything
            pass_on(error)
            return {"type": objects.name_of(kind), "unreadable": objects.type_name(error)}

    def convert_map(self, items: dict[Any, Any]) -> dict[Any, Any]:
        """Values by name. What is over the cap of a container is told under the name `…`."""
        room = self._room(len(items))
        found = self._pairs(list(islice(items.items(), room)), 0)
        if room < len(items):
            found["…"] = {"type": "dict", "length": len(items)}
        return found

    # --- plain types ---

    def _text(self, value: str) -> Any:
        room = min(self._rules.text_max, max(self._text_left, 0))
        secrets = self._rules.secrets
        if len(value) <= room:
            self._text_left -= len(value)
            return secrets.text(value) if "://" in value else value
        self._text_left -= room
        return {"type": "str", "length": len(value), "cut": secrets.text(value[: room + EDGE])[:room]}

    def _bytes(self, value: bytes) -> Any:
        room = min(self._rules.text_max, max(self._text_left, 0))
        self._text_left -= min(len(value), room)
        raw = self._rules.secrets.raw
        if len(value) <= room:
            return raw(value)
        return {"type": "bytes", "length": len(value), "cut": raw(value[: room + EDGE])[:room]}

    def _int(self, value: int) -> Any:
        bits = value.bit_length()
        if bits <= 64:
            return value
        self._text_left -= bits // 4
        return (
            value
            if bits <= 4 * self._rules.text_max and self._text_left >= 0
            else {"type": "int", "bits": bits}
        )

    # --- containers ---

    def _room(self, size: int) -> int:
        room = min(size, self._rules.items_max, self._items_left)
        self._items_left -= room
        return room

    def _container(self, value: Any, base: Any, depth: int) -> Any:
        """A dict, list, tuple, set or frozenset, or a subclass, whose methods are passed over for those of `base`."""
        size = base.__len__(value)
        name = objects.type_name(value)
        if id(value) in self._path:
            return {"type": name, "length": size, "cycle": depth - self._path[id(value)]}
        if depth >= self._rules.depth_max:
            return {"type": name, "length": size, "too_deep": True}
        room = self._room(size)
        self._path[id(value)] = depth
        try:
            items: Any
            if base is dict:
                items = self._pairs(list(islice(dict.items(value), room)), depth)
                packed = packing.pack_odd_map(items) if any(type(key) is tuple for key in items) else items
            else:
                packed = self._items(list(islice(base.__iter__(value), room)), type(value), base, depth)
        finally:
            del self._path[id(value)]
        return packed if room == size else {"type": name, "length": size, "cut": packed}

    def _items(self, items: list[Any], kind: type, base: type, depth: int) -> list[Any]:
        kinds = _kinds(items)
        if kinds <= _PLAIN or (kinds == {int} and _INT64.start <= min(items) and max(items) < _INT64.stop):
            return sorted(items) if base in (set, frozenset) and None not in items else items
        if base in (set, frozenset) and kinds in _SORTABLE:
            items.sort()  # sets have no order: an equal set is recorded equally
        converted = [self.convert(item, depth + 1) for item in items]
        if base is tuple and kind is not tuple:
            _hide_fields(converted, kind, self._rules)
        return converted

    def _pairs(self, pairs: list[tuple[Any, Any]], depth: int) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for key, item in pairs:
            name = self._key(key)
            room = _KEY_MAX if self._text_left > 0 else _KEY_MIN
            if name in found or (type(name) is str and len(name) > room):
                name = _numbered(name, room, found)
            found[name] = hide(item) if self._is_secret(name) else self.convert(item, depth + 1)
        return found

    def _is_secret(self, key: Any) -> bool:
        if type(key) is bytes:
            key = key.decode("latin-1")
        return type(key) is str and self._rules.secrets.is_secret(key)

    def _key(self, key: Any, depth: int = 0) -> Any:
        kind = type(key)
        if kind is str:
            self._text_left -= len(key)
            return self._rules.secrets.text(key[: _KEY_MAX + EDGE]) if "://" in key else key
        if key is None or kind is float or kind is bool:
            return key
        if issubclass(kind, (tuple, frozenset)) and not issubclass(kind, Enum):
            base: Any = tuple if issubclass(kind, tuple) else frozenset
            if depth < 4 and base.__len__(key) <= self._room(64):
                return tuple([self._key(part, depth + 1) for part in base.__iter__(key)])
            return objects.type_name(key)
        converted = self.convert(key, self._rules.depth_max)
        if isinstance(converted, (str, int, float, datetime)):
            return converted
        if type(converted) is bytes and len(converted) <= _KEY_MAX:
            return converted
        name = objects.type_name(key)
        said = converted.get("object") if type(converted) is dict else None
        return f"{name} {said}" if said else name

    # --- objects ---

    def _object(self, value: Any, kind: type, depth: int) -> Any:
        function = objects.registered_function(kind)
        own = objects.declared(kind, "to_provd_dict") if function is None else None
        if function is not None or own is not None:
            return self._told(value, lambda: function(value) if function else value.to_provd_dict(), depth)
        if issubclass(kind, Enum):
            return self._told(value, lambda: objects.instance_dict(value).get("_value_"), depth)
        if issubclass(kind, str):
            return self._text(str.__str__(value))
        if issubclass(kind, int):
            return self._int(int.__int__(value))
        if issubclass(kind, float):
            return float.__float__(value)
        if issubclass(kind, (bytes, bytearray)):
            return self._raw_bytes(value, bytes if issubclass(kind, bytes) else bytearray)
        for base in (dict, list, tuple, set, frozenset):
            if issubclass(kind, base):
                return self._container(value, base, depth)
        if issubclass(kind, (date, time, timedelta)):
            return _moment(value, kind)
        if kind is complex:
            return {"type": "complex", "real": value.real, "imag": value.imag}
        return self._foreign(value, kind, depth)

    def _raw_bytes(self, value: Any, base: Any) -> Any:
        """Of bytes that are not exactly `bytes`: no more than what is kept is copied."""
        size = base.__len__(value)
        head = self._bytes(bytes(base.__getitem__(value, slice(0, self._rules.text_max + 1))))
        return {**head, "length": size} if type(head) is dict else head

    def _told(self, value: Any, ask: Callable[[], Any], depth: int) -> Any:
        """What an object says of itself, in its place."""
        if id(value) in self._path:
            return {"type": objects.type_name(value), "cycle": depth - self._path[id(value)]}
        if len(self._path) > 2 * self._rules.depth_max:
            return {"type": objects.type_name(value), "too_deep": True}
        self._path[id(value)] = depth
        try:
            return self.convert(ask(), depth)
        finally:
            del self._path[id(value)]

    def _foreign(self, value: Any, kind: type, depth: int) -> Any:
        """Types of modules that are known only when the program itself has imported them."""
        for module, name in _AS_TEXT:
            base = _imported(module, name)
            if base is not None and _is_base(base, kind):
                return self._text(base.__str__(value))
        for module, name in _AS_THEIR_ATTRIBUTES:
            base = _imported(module, name)
            if base is not None and _is_base(base, kind):
                return self._told(value, partial(objects.instance_dict, value), depth)
        fields = objects.dataclass_fields(value) if not issubclass(kind, type) else None
        if fields is not None:
            return self._told(value, lambda: fields, depth)
        scalar = _imported("numpy", "generic")
        if scalar is not None and issubclass(kind, scalar):
            return self._numpy_scalar(value, scalar, depth)
        return objects.summary(value, self._made) or objects.identify(value, self._made)

    def _numpy_scalar(self, value: Any, scalar: Any, depth: int) -> Any:
        item = scalar.item(value)
        if isinstance(item, scalar):  # wider than what Python has, such as `longdouble`
            wide = _imported("numpy", "complexfloating")
            item = complex(item) if wide is not None and issubclass(type(item), wide) else float(item)
        return self.convert(item, depth + 1)


def _kinds(items: list[Any]) -> set[type]:
    """The types of items; of objects whose very class cannot be looked at, `object`."""
    try:
        return set(map(type, items))
    except Exception as error:  # noqa: BLE001 - looking a class up runs the code of its metaclass
        pass_on(error)
        return {object}


def _hide_fields(items: list[Any], kind: type, rules: Rules) -> None:
    """Mask the credentials of a named tuple."""
    fields = objects.declared(kind, "_fields")
    if type(fields) is tuple and all(type(name) is str for name in fields):
        for index in rules.secrets.positions(fields[: len(items)]):
            items[index] = hide(items[index])


def _numbered(name: Any, room: int, found: dict[Any, Any]) -> str:
    """A key of its own for what cannot keep its key: too long, or like another once converted."""
    text = name if type(name) is str else f"{name!r}"
    number = len(found)
    while (own := f"{text[:room]}… #{number}") in found:
        number += 1
    return own


def _moment(value: Any, kind: type) -> Any:
    if issubclass(kind, datetime):
        if kind.__name__ == "NaTType":
            return None
        try:
            if datetime.utcoffset(value) is not None:
                return clock.to_datetime(clock.from_datetime(value))
        except OverflowError:
            pass  # at the ends of the calendar another zone's moment has no date in ours
        return datetime.isoformat(value)
    if issubclass(kind, timedelta):
        return timedelta.total_seconds(value)
    return date.isoformat(value) if issubclass(kind, date) else time.isoformat(value)


#: `issubclass(kind, base)` as `_is_base(base, kind)`, without the hooks of abstract classes, which look the class up and so run its metaclass.
_is_base = type.__dict__["__subclasscheck__"]


def _imported(module: str, name: str) -> Any:
    """A type of a module that the program has imported; None if it has not."""
    found = sys.modules.get(module)
    kind = vars(found).get(name) if found is not None else None
    return kind if isinstance(kind, type) else None
