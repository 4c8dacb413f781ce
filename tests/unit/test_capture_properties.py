"""Any value at all is recorded, as it is or as a stated stand-in, and is not changed by that.

`HYPOTHESIS_PROFILE=nightly` looks at 8,000 examples of each property under each set of caps, 56,000 in all.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import GeneratorType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provd.common import wire
from provd.common.record import Kind, Message
from provd.common.settings import Settings
from provd.common.values import from_json, to_json
from provd.producer.capture import Frozen, convert, freeze, freeze_map
from provd.producer.entry import TaskEntry
from provd.producer.framing import Framer, Limits, Origin
from provd.producer.rules import current_rules, use_rules
from tests.odd_values import anything
from tests.record_values import canonical, values

pytestmark = pytest.mark.timeout(3600)

ORIGIN = Origin("p-1", "w", None, "host", 1, None)

#: Room for little, so that every cap is met.
TIGHT = Settings(value_text_max=256, value_items_max=4, value_depth_max=3, message_bytes_max=16 * 1024)


@pytest.fixture(params=[Settings(), TIGHT], ids=["default caps", "tight caps"], scope="module")
def settings(request: pytest.FixtureRequest) -> Iterator[Settings]:
    before = current_rules()
    use_rules(request.param)
    yield request.param
    use_rules(Settings())
    assert current_rules().message_max == before.message_max


@given(anything, anything)
def test_any_value_makes_a_message_that_both_stores_and_files_can_keep(
    settings: Settings, argument: Any, result: Any
) -> None:
    """Recorded, never raises, under the cap of a message, and the same again when read from a file."""
    used, generated = freeze((argument,)), freeze_map({"result": result})

    size, message = framed(used, generated)

    assert size <= settings.message_bytes_max
    assert set(message.record["used"]) == {"x"}
    assert set(message.record["generated"]) == {"result"}
    line = to_json(message.record)
    assert canonical(from_json(line)) == canonical(message.record)
    assert "odd_values.Touched" not in line  # no code of a value's was run


@given(anything)
def test_no_value_is_changed_by_being_recorded(settings: Settings, value: Any) -> None:
    before = anatomy(value)

    freeze((value,))
    freeze_map({"x": value})
    convert(value)

    assert anatomy(value) == before


@given(values)
def test_a_value_that_can_be_kept_comes_back_equal(value: Any) -> None:
    use_rules(Settings(mask_secrets=False))

    _, message = framed(freeze((value,)), freeze_map({"result": value}))

    assert canonical(message.record["used"]["x"]) == canonical(as_read(value))
    assert canonical(message.record["generated"]["result"]) == canonical(as_read(value))
    use_rules(Settings())


@given(st.lists(anything, max_size=40), st.dictionaries(st.text(max_size=80), anything, max_size=40))
def test_many_values_still_fit_into_one_message(
    settings: Settings, arguments: list[Any], results: dict[str, Any]
) -> None:
    size, message = framed(
        freeze_map({f"arg_{index}": argument for index, argument in enumerate(arguments)}),
        freeze_map(results),
        extra={"stderr": "e" * 20_000, "traceback": "t" * 60_000, "custom_metadata": convert(results)},
    )

    assert size <= settings.message_bytes_max
    assert message.record["status"] == "FINISHED"
    assert isinstance(message.record["traceback"], str)


def framed(
    used: Frozen, generated: Frozen | None, extra: dict[str, Any] | None = None
) -> tuple[int, Message]:
    """The message a task with these values makes, and its packed size."""
    entry = TaskEntry()
    names = ("x",) if isinstance(used, tuple) or wire.unpack(used).__class__ is list else None
    entry.shape = wire.Shape(Kind.TASK, (("activity_id", "f"),), names)
    entry.producer_id, entry.counter, entry.parent, entry.used = "p-1", 1, None, used
    entry.started_at = entry.started = 1.0
    entry.duration, entry.rank, entry.generated, entry.extra, entry.announced = (
        0.5,
        4,
        generated,
        extra,
        False,
    )
    framer = Framer(ORIGIN, Limits(500, 64 << 20), 1)
    framer.add_task(entry)
    (frame,) = framer.finish()
    decoded = wire.decode(frame.header_field, frame.body_field)
    assert decoded.flaws == ()
    (message,) = decoded.messages
    return len(frame.body_field) - len(entry.shape.packed), message


def as_read(value: Any) -> Any:
    """Equal, as the record keeps it: tuples are lists, except in keys."""
    if isinstance(value, dict):
        return {key: as_read(item) for key, item in value.items()}
    return [as_read(item) for item in value] if isinstance(value, (list, tuple)) else value


def anatomy(value: Any, seen: tuple[int, ...] = ()) -> Any:
    """What a value is made of, down to the identity of its parts, without running any code of theirs."""
    kind = type(value)
    if id(value) in seen:
        return "cycle"
    inside = (*seen, id(value))
    if issubclass(kind, dict):
        return id(value), [(id(key), anatomy(item, inside)) for key, item in list(dict.items(value))]
    if issubclass(kind, list):
        return id(value), [anatomy(item, inside) for item in list.__iter__(value)]
    if issubclass(kind, (set, frozenset)):
        return id(value), len(value)
    if kind is GeneratorType:
        return id(value), value.gi_frame is not None and value.gi_frame.f_lasti
    return id(value)
