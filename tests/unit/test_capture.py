"""What the record says of a value: as it is where that can be kept, else a stand-in that says what it stands for."""

from __future__ import annotations

import argparse
import enum
import gc
import math
import signal
import tracemalloc
import uuid
import weakref
from collections import OrderedDict, namedtuple
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

import provd
from provd.common import wire
from provd.common.settings import Settings
from provd.producer.capture import convert, freeze, freeze_map, freeze_named
from provd.producer.rules import use_rules
from tests.odd_values import EvilDict, EvilList, EvilObject, EvilSet, EvilStr, EvilTuple, Raising, Slotted


@pytest.fixture(autouse=True)
def default_rules() -> Iterator[None]:
    use_rules(Settings())
    yield
    use_rules(Settings())


def recorded(value: Any) -> Any:
    """What a reader finds for an argument."""
    row = freeze((value,))
    (found,) = row if isinstance(row, tuple) else wire.unpack(row)
    return found


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Config:
    lr: float
    layers: list[int] = field(default_factory=list)
    kind: ClassVar[str] = "config"


@dataclass
class Login:
    user: str
    password: str


Account = namedtuple("Account", ["user", "api_key"])

UTC_MOMENT = datetime(2026, 11, 20, 14, 3, 0, 250_000, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    "value",
    [
        None, True, 3, -0.5, "adam", "", b"\0\xff", "\ud800", 2**64 - 1, 2**200, -(2**63) - 1, math.inf, -math.inf,
        [1, [2, [3]]], {"a": {"b": [1]}}, {1: "a", None: 2, (1, "x"): 3, b"k": 4, 1.5: 5, 2**70: 6}, UTC_MOMENT,
        {"$gt": 1, "a.b": 2, "": 3}, ["$HOME", "$$x"], [], {},
    ],
    ids=lambda value: ascii(value)[:30],
)  # fmt: skip
def test_plain_values_come_back_as_they_were(value: Any) -> None:
    assert recorded(value) == value
    assert type(recorded(value)) is type(value)


def test_not_a_number_stays_not_a_number() -> None:
    assert math.isnan(recorded([math.nan])[0])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, "a"), [1, "a"]),
        ({"b", "a"}, ["a", "b"]),
        (frozenset({2, 1}), [1, 2]),
        (bytearray(b"ab"), b"ab"),
        (Colour.RED, "red"),
        (signal.Signals.SIGINT, 2),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Path("/data/x"), "/data/x"),
        (Decimal("0.10"), "0.10"),
        (Fraction(1, 3), "1/3"),
        (datetime(2026, 1, 2, 3), "2026-01-02T03:00:00"),  # noqa: DTZ001 - as programs have it
        (date(2026, 1, 2), "2026-01-02"),
        (time(3, 4), "03:04:00"),
        (timedelta(minutes=1), 60.0),
        (UTC_MOMENT.astimezone(timezone(timedelta(hours=9))), UTC_MOMENT),
        (Config(0.1, [1, 2]), {"lr": 0.1, "layers": [1, 2]}),
        (OrderedDict(a=1), {"a": 1}),
        (argparse.Namespace(lr=0.1), {"lr": 0.1}),
        (SimpleNamespace(lr=0.1), {"lr": 0.1}),
        (1 + 2j, {"type": "complex", "real": 1.0, "imag": 2.0}),
        ({Path("/x"): 1}, {"/x": 1}),
        ({Colour.RED: 1}, {"red": 1}),
        ({frozenset({1}): "a"}, {(1,): "a"}),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_standard_types_are_recorded_by_value(value: Any, expected: Any) -> None:
    assert recorded(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(0.5), 0.5), (np.float32(0.5), 0.5), (np.int8(3), 3), (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True), (np.str_("a"), "a"), (np.longdouble(1.5), 1.5),
        (np.complex64(1j), {"type": "complex", "real": 0.0, "imag": 1.0}),
        (np.clongdouble(1j), {"type": "complex", "real": 0.0, "imag": 1.0}),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_numpy_scalars_stay_numbers(value: Any, expected: Any) -> None:
    assert recorded(value) == expected
    assert type(recorded([value])[0]) is type(expected)


def test_arrays_are_recorded_in_short() -> None:
    array = np.zeros((2, 3))

    said = recorded(array)

    assert said.pop("object") == recorded(array)["object"] != recorded(np.zeros((2, 3)))["object"]
    assert said == {"type": "numpy.ndarray", "shape": [2, 3], "dtype": "float64", "bytes": 48}


def test_an_array_that_overrides_its_shape_is_still_an_array() -> None:
    def load(_: Any) -> Any:
        raise AssertionError("loads the world")

    lazy = type("Lazy", (np.ndarray,), {"shape": property(load)})

    assert recorded(np.zeros(4).view(lazy))["shape"] == [4]


def test_an_object_is_recorded_by_type_and_identity() -> None:
    one, other = Raising(ValueError()), EvilObject()

    first, again, second = recorded(other), recorded([other])[0], recorded(EvilObject())

    assert first["type"] == "tests.odd_values.EvilObject"
    assert first["object"].rpartition("#")[2].isdigit()
    assert again == first
    assert second["object"] != first["object"]
    assert recorded(one) == {"type": "tests.odd_values.Raising", "unreadable": "ValueError"}


def test_each_task_that_hands_an_object_on_makes_a_new_version_of_it() -> None:
    class Model: ...

    model = Model()
    values = {"model": model, "same": [model]}

    used = wire.unpack(freeze_map(values))
    made = wire.unpack(freeze_map(values, made=True))
    used_again = wire.unpack(freeze_map(values))
    made_again = wire.unpack(freeze_map(values, made=True))

    assert "version" not in used["model"]
    assert made["model"] == made["same"][0] == used_again["model"] == {**used["model"], "version": 1}
    assert made_again["model"]["version"] == 2


def test_an_identity_is_never_given_twice() -> None:
    """`id()` of something gone is soon the id of something else."""

    class Model: ...

    seen = set()
    for _ in range(100):
        seen.add(recorded(Model())["object"])
        gc.collect(0)

    assert len(seen) == 100


def test_being_recorded_keeps_nothing_alive() -> None:
    class Model: ...

    model = Model()
    recorded(model)
    gone = weakref.ref(model)

    del model
    gc.collect()

    assert gone() is None


def test_an_object_that_cannot_be_weakly_referenced_has_its_type_alone() -> None:
    assert recorded(Slotted()) == {"type": "tests.odd_values.Slotted"}


def test_functions_and_classes_are_named() -> None:
    assert recorded(recorded)["name"] == f"{__name__}.recorded"
    assert recorded(Config)["name"] == f"{__name__}.Config"


def test_a_generator_is_not_consumed() -> None:
    numbers = (number for number in range(3))

    assert recorded(numbers)["type"] == "generator"
    assert list(numbers) == [0, 1, 2]


def test_methods_of_subclasses_are_not_called() -> None:
    """Every method of these raises."""
    assert recorded(EvilDict(a=1)) == {"a": 1}
    assert recorded(EvilList([1, 2])) == [1, 2]
    assert recorded(EvilTuple((1, 2))) == [1, 2]
    assert recorded(EvilSet()) == []
    assert recorded(EvilStr("x")) == "x"


def test_an_object_says_itself_what_to_record() -> None:
    class Mesh:
        def to_provd_dict(self) -> dict[str, Any]:
            return {"cells": 12, "origin": (0, 0)}

    assert recorded([Mesh()]) == [{"cells": 12, "origin": [0, 0]}]


def test_other_types_are_recorded_by_registration() -> None:
    class Molecule:
        def to_dict(self) -> dict[str, Any]:
            return {"atoms": 3}

    class Water(Molecule): ...

    assert "object" in recorded(Water())

    provd.register(Molecule, Molecule.to_dict)

    assert recorded(Water()) == {"atoms": 3}


@pytest.mark.parametrize("registered", [int, dict, str, object, "Molecule"])
def test_built_in_types_cannot_be_registered(registered: Any) -> None:
    with pytest.raises(TypeError):
        provd.register(registered, str)


@pytest.mark.parametrize("error", [ValueError(), RecursionError(), MemoryError(), StopIteration()], ids=repr)
def test_what_an_objects_own_method_raises_is_told_not_raised(error: Exception) -> None:
    assert recorded({"a": Raising(error)})["a"]["unreadable"] == type(error).__name__


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_passes(interrupt: type[BaseException]) -> None:
    """Ctrl-C, and a handler that exits, strike wherever the program happens to be."""

    class Struck:
        def to_provd_dict(self) -> Any:
            raise interrupt

    with pytest.raises(interrupt):
        freeze((Struck(),))


def test_a_value_is_recorded_as_it_was() -> None:
    layers = [1, 2]
    config = {"layers": layers}
    row, named = freeze((config,)), freeze_map({"config": config})

    layers.append(3)
    config["more"] = []

    assert wire.unpack(row if isinstance(row, bytes) else b"") == [{"layers": [1, 2]}]
    assert wire.unpack(named) == {"config": {"layers": [1, 2]}}


# --- caps ------------------------------------------------------------------------------------------------------


def test_a_long_text_is_cut_and_says_so() -> None:
    use_rules(Settings(value_text_max=300))

    assert recorded("x" * 301) == {"type": "str", "length": 301, "cut": "x" * 300}
    assert recorded(b"x" * 301) == {"type": "bytes", "length": 301, "cut": b"x" * 300}
    assert recorded(["x" * 301, 1]) == [{"type": "str", "length": 301, "cut": "x" * 300}, 1]
    assert recorded("x" * 300) == "x" * 300


def test_a_large_container_is_cut_and_says_so() -> None:
    use_rules(Settings(value_items_max=3))

    assert recorded([1, 2, 3]) == [1, 2, 3]
    assert recorded([1, 2, 3, 4]) == {"type": "list", "length": 4, "cut": [1, 2, 3]}
    assert recorded(tuple(range(9))) == {"type": "tuple", "length": 9, "cut": [0, 1, 2]}
    assert recorded(dict.fromkeys("abcd", 1)) == {"type": "dict", "length": 4, "cut": dict.fromkeys("abc", 1)}
    assert recorded({"a": [1, 2, 3, 4]})["a"]["length"] == 4


def test_a_deep_value_is_cut_and_says_so() -> None:
    use_rules(Settings(value_depth_max=2))

    assert recorded([[1]]) == [[1]]
    assert recorded([[[1, 2]]]) == [[{"type": "list", "length": 2, "too_deep": True}]]
    assert recorded({"a": {"b": {"c": 1}}}) == {"a": {"b": {"type": "dict", "length": 1, "too_deep": True}}}


def test_an_endless_int_is_told_by_its_size() -> None:
    assert recorded([1 << 14_285]) == [1 << 14_285]
    assert recorded([1 << 300_000]) == [{"type": "int", "bits": 300_001}]


def test_a_cycle_is_recognised() -> None:
    ring: list[Any] = [1]
    ring.append({"ring": ring})

    assert recorded(ring) == [1, {"ring": {"type": "list", "length": 2, "cycle": 2}}]


def test_the_same_value_twice_is_no_cycle() -> None:
    shared = [object.__new__(Slotted)]

    said = [{"type": "tests.odd_values.Slotted"}]
    assert recorded([shared, shared]) == [said, said]


def test_a_value_that_is_everywhere_in_itself_ends() -> None:
    knot: list[Any] = []
    knot.extend([knot, {"a": knot}] * 50)
    wide: Any = 1
    for _ in range(16):
        wide = [wide] * 10

    assert len(recorded(knot)) == 100
    assert len(wire.pack(recorded(wide))) < 1 << 20


def test_keys_that_become_alike_are_kept_apart() -> None:
    said = recorded({"/x": 1, Path("/x"): 2})

    assert sorted(said.values()) == [1, 2]
    assert said["/x"] == 1


def test_a_long_key_is_cut() -> None:
    said = recorded({"k" * 5_000: 1, "k" * 5_001: 2})

    assert sorted(said.values()) == [1, 2]
    assert max(map(len, said)) < 1_100


def test_a_message_over_its_cap_loses_its_largest_values_first() -> None:
    use_rules(Settings(message_bytes_max=16 * 1024))
    row = freeze((0.1, ["x" * 100] * 300, "small", list(range(2_000)), b"y" * 9_000))

    assert isinstance(row, bytes)
    lr, texts, small, numbers, data = wire.unpack(row)

    assert len(row) <= 16 * 1024
    assert (lr, small) == (0.1, "small")
    assert numbers == list(range(2_000))
    assert texts == {"type": "list", "length": 300, "bytes": 30_603, "too_large": True}
    assert data == b"y" * 9_000


def test_of_a_value_with_a_large_part_the_rest_is_kept() -> None:
    use_rules(Settings(message_bytes_max=16 * 1024))
    config = {
        "lr": 0.1,
        "data": {"name": "digits", "rows": ["row"] * 9_000},
        "blobs": [b"x" * 9_000, b"y" * 9_000, b"z"],
    }

    said = recorded(config)

    assert said["lr"] == 0.1
    assert said["data"] == {
        "name": "digits",
        "rows": {"type": "list", "length": 9_000, "bytes": 36_003, "too_large": True},
    }
    assert said["blobs"][2] == b"z"
    assert said["blobs"][0]["too_large"]


def test_very_many_names_are_cut_to_fit_a_message() -> None:
    use_rules(Settings(message_bytes_max=16 * 1024))

    packed = freeze_map({f"name_{number}": number for number in range(5_000)})

    assert len(packed) <= 16 * 1024
    assert wire.unpack(packed)["name_7"] == 7
    assert wire.unpack(packed)["…"]["length"] == 5_000


def test_metadata_leaves_room_for_the_rest_of_a_message() -> None:
    said = convert({"notes": ["x" * 1_000] * 1_000, "n": 1})

    assert said["n"] == 1
    assert len(wire.pack(said)) < 1 << 18
    assert {type(note) for note in said["notes"]} == {dict, str}


def test_the_size_of_an_int_does_not_stop_a_reader() -> None:
    """Python refuses to turn ints of more than 4300 digits into text."""
    assert recorded({10**5_000: [10**5_000]}) == {10**5_000: [10**5_000]}


# --- secrets ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"user": "me", "password": "hunter2"}, {"user": "me", "password": "***"}),
        ({"db": {"apiKey": "hunter2", "port": 1}}, {"db": {"apiKey": "***", "port": 1}}),
        ([{"token": ["hunter2"]}], [{"token": "***"}]),
        ({b"password": "hunter2"}, {b"password": "***"}),
        ({"password": 1234}, {"password": "***"}),
        ({"password": None, "auth": False}, {"password": None, "auth": False}),
        ({"max_tokens": 5, "tokenizer": "bpe"}, {"max_tokens": 5, "tokenizer": "bpe"}),
        (Login("me", "hunter2"), {"user": "me", "password": "***"}),
        (Account("me", "hunter2"), ["me", "***"]),
        (argparse.Namespace(token="hunter2"), {"token": "***"}),
        ("redis://:hunter2@db", "redis://:***@db"),
        (["redis://:hunter2@db"], ["redis://:***@db"]),
        ({"a": {"b": {"c": "redis://:hunter2@db"}}}, {"a": {"b": {"c": "redis://:***@db"}}}),
        (Path("/data/a:b@c"), "/data/a:b@c"),
        ({"redis://:hunter2@db": 1}, {"redis://:***@db": 1}),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_credentials_inside_of_values_are_masked(value: Any, expected: Any) -> None:
    assert recorded(value) == expected


def test_credentials_stay_masked_once_their_names_are_known() -> None:
    for _ in range(3):
        assert recorded({"lr": 0.1, "password": "hunter2"}) == {"lr": 0.1, "password": "***"}


def test_named_values_are_masked_by_their_names() -> None:
    row = freeze_named(("lr", "api_key"), (0.1, "hunter2"))

    assert row == (0.1, "***")
    assert wire.unpack(freeze_map({"api_key": "hunter2", "n": 1})) == {"api_key": "***", "n": 1}


def test_a_cut_does_not_go_through_a_password() -> None:
    use_rules(Settings(value_text_max=300))

    assert "hun" not in recorded("x" * 283 + " redis://me:hunter2@db/0")["cut"]


@pytest.mark.parametrize(
    "huge",
    [["x" * 60_000] * 10_000, {"text": "x" * 50_000_000}, {str(n): b"x" * 60_000 for n in range(2_000)}],
    ids=["many-texts", "one-text", "many-bytes"],
)
def test_what_is_too_large_to_record_is_not_copied_to_find_out(huge: Any) -> None:
    """G5: recording costs memory in proportion to what a record may hold, not to what the program holds."""
    tracemalloc.start()
    packed = freeze((huge,))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(packed) <= Settings().message_bytes_max
    assert peak < 32 << 20


def test_a_type_that_passes_for_int_does_not_make_the_walk_endless() -> None:
    class Passing(type):
        def __eq__(cls, other: object) -> bool:
            return True

        def __hash__(cls) -> int:
            return hash(int)

    class NoInt(metaclass=Passing):
        pass

    frozen = freeze(([NoInt()],))

    assert isinstance(frozen, bytes)
    assert wire.unpack(frozen) == [{"type": "list", "unreadable": "TypeError"}]
