"""Values that programs really pass, and objects that do their worst when they are touched."""

from __future__ import annotations

import argparse
import enum
import fractions
import types
import uuid
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any, NoReturn

import numpy as np
from hypothesis import strategies as st

from tests.record_values import keys, scalars


class Touched(Exception):
    """Code of the user's was run."""


def _touched(*_: Any, **__: Any) -> NoReturn:
    raise Touched


_METHODS = (
    "__repr__", "__str__", "__eq__", "__len__", "__iter__", "__getitem__", "__contains__", "__bool__", "__int__",
    "__float__", "__index__", "__bytes__", "__format__", "__getattr__", "__getattribute__", "__reduce__", "__reduce_ex__",
    "__copy__", "__deepcopy__", "__call__", "__array__", "__fspath__", "__dir__", "__lt__", "__next__", "keys", "items",
    "values", "copy", "get", "to_dict", "isoformat", "utcoffset", "item", "value",
)  # fmt: skip

_EVIL: dict[str, Any] = dict.fromkeys(_METHODS, _touched)
_EVIL["__hash__"] = _touched
_EVIL["__class__"] = property(_touched)
_EVIL["__dict__"] = property(_touched)
_EVIL["shape"] = property(_touched)


def evil_subclass(base: type) -> Any:
    """A subclass of a type, all of whose methods raise."""
    return type(f"Evil{base.__name__.title()}", (base,), dict(_EVIL))


EvilObject = evil_subclass(object)
EvilDict, EvilList, EvilTuple = evil_subclass(dict), evil_subclass(list), evil_subclass(tuple)
EvilSet, EvilStr, EvilInt = evil_subclass(set), evil_subclass(str), evil_subclass(int)
EvilFloat, EvilBytes, EvilDatetime = evil_subclass(float), evil_subclass(bytes), evil_subclass(datetime)


class EvilMeta(type):
    """The type of a class whose very class raises."""

    def __getattribute__(cls, name: str) -> NoReturn:
        raise Touched

    def __repr__(cls) -> NoReturn:
        raise Touched

    def __hash__(cls) -> NoReturn:
        raise Touched

    def __eq__(cls, other: object) -> NoReturn:
        raise Touched

    def __instancecheck__(cls, instance: object) -> NoReturn:
        raise Touched


class EvilClass(metaclass=EvilMeta):
    """A class that cannot be looked at."""


class Slotted:
    """An object that cannot be weakly referenced."""

    __slots__ = ("x",)


class Raising:
    """An object that fails to say what it is."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def to_provd_dict(self) -> dict[str, Any]:
        raise self.error


class Endless:
    """An object that always says it is another one."""

    def to_provd_dict(self) -> Any:
        return Endless()


class Itself:
    """An object that says it is itself."""

    def to_provd_dict(self) -> Any:
        return self


class Colour(enum.Enum):
    """An enum whose values are of several types."""

    RED = "red"
    PAIR = (1, "b")


class Level(enum.IntFlag):
    """A flag, whose members combine."""

    LOW = 1
    HIGH = 2


Point = namedtuple("Point", ["x", "y"])


@dataclass
class Run:
    """A dataclass that may hold anything."""

    name: Any
    inner: Any = None


@dataclass(frozen=True)
class SlottedRun:
    """A dataclass without a dictionary."""

    __slots__ = ("name",)
    name: Any


def _generator() -> Iterator[int]:
    yield _touched()


def _cycle(value: Any) -> Any:
    ring: list[Any] = [value]
    ring.append(ring)
    return ring


def _knot(value: Any) -> Any:
    """A dict, a list and a dataclass that hold each other."""
    knot: dict[Any, Any] = {"value": value}
    knot["run"] = Run("knot", [knot, value])
    knot["all"] = [knot["run"], knot]
    return knot


def _nested(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = {"level": value} if level % 2 else [value]
    return value


#: Made anew for each example; hypothesis itself must not look at them.
_MAKERS: list[Any] = [
        EvilObject, object, Slotted, Endless, Itself, lambda: [EvilClass(), 1], lambda: (EvilClass, 2), lambda: [EvilObject], lambda: EvilStr("x"), lambda: EvilInt(3),
        lambda: EvilFloat(0.5), lambda: EvilBytes(b"x"), lambda: EvilDatetime(2026, 1, 1), _generator, lambda: len,
        lambda: lambda: 1, lambda: types, lambda: Raising(ValueError("no")), lambda: Raising(RecursionError()),
        lambda: Raising(MemoryError()), lambda: Ellipsis, lambda: NotImplemented,
        lambda: complex(1, 2), lambda: 1 << 400_000, lambda: bytearray(b"ab"), lambda: memoryview(b"ab"), lambda: range(3), lambda: slice(1),
        lambda: iter([1]), lambda: open, lambda: types.SimpleNamespace(a=1), lambda: argparse.Namespace(a=1, token="x"),
]  # fmt: skip

_made = st.integers(0, len(_MAKERS) - 1).map(lambda number: _MAKERS[number]())

_numpy = st.sampled_from(
    [
        np.float64(0.1), np.float32(0.5), np.float16(2), np.int64(-3), np.uint64(2**64 - 1), np.bool_(True), np.str_("s"),
        np.bytes_(b"s"), np.longdouble(1.5), np.clongdouble(1 + 2j), np.complex64(1j), np.datetime64("2026-01-01"),
        np.datetime64("NaT"), np.timedelta64(3, "s"), np.zeros((2, 3)), np.array(3.0), np.array(["a", None], dtype=object),
        np.zeros(2, dtype=[("a", "i4"), ("b", "f8")]), np.zeros(2, dtype=[("a", "i4"), ("b", "f8")])[0],
        np.ma.masked_array([1, 2], mask=[True, False]), np.void(b"abc"), np.dtype("f4"), np.ones(0),
    ]
)  # fmt: skip

_standard = st.one_of(
    st.datetimes(timezones=st.none() | st.timezones()), st.dates(), st.times(), st.timedeltas(), st.uuids(),
    st.decimals(), st.fractions(), st.sampled_from([*Colour, Level.LOW | Level.HIGH, date.max]),
    st.sampled_from([PurePosixPath("/data/\udce9"), time.max, timedelta.max, Decimal("sNaN"), uuid.UUID(int=0)]),
    st.integers(0, 20_000).map(lambda bits: -(1 << bits)), st.just(fractions.Fraction(1, 3)),
)  # fmt: skip

_hashable = scalars | _standard.filter(lambda value: not isinstance(value, (bytearray, Decimal)))

#: Anything: what programs pass, in containers of every kind, whole or broken.
anything = st.recursive(
    scalars | _made | _numpy | _standard,
    lambda inner: st.one_of(
        st.lists(inner, max_size=6),
        st.dictionaries(
            keys | _hashable | st.sampled_from(["password", "token", "api_key"]), inner, max_size=5
        ),
        st.lists(inner, max_size=4).map(tuple),
        st.frozensets(_hashable, max_size=4),
        st.sets(_hashable, max_size=4),
        st.lists(inner, max_size=4).map(EvilList),
        st.lists(inner, max_size=4).map(EvilTuple),
        st.dictionaries(keys, inner, max_size=3).map(EvilDict),
        st.dictionaries(keys, inner, max_size=3).map(OrderedDict),
        st.dictionaries(keys, inner, max_size=3).map(lambda items: defaultdict(list, items)),
        st.tuples(inner, inner).map(lambda pair: Point(*pair)),
        inner.map(_cycle),
        inner.map(_knot),
        inner.map(lambda value: Run("run", value)),
        inner.map(SlottedRun),
        inner.map(lambda value: argparse.Namespace(value=value, password=value)),
        st.text(max_size=5).map(lambda text: f"see redis://u:{text}@h/ {text}"),
        st.integers(1, 400).map(lambda size: "long " * size),
        st.integers(1, 3000).map(lambda size: list(range(size))),
        st.integers(1, 40).map(_nested),
    ),
    max_leaves=15,
)
