"""Values survive both stores and every JSON file, whatever they are."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import example, given

from provd.common.values import from_json, from_portable, to_json, to_portable
from tests.record_values import canonical, values


@given(values)
def test_from_portable_undoes_to_portable(value: Any) -> None:
    """`from_portable(to_portable(v)) == v` for every value above (tuples inside keys stay tuples)."""
    assert canonical(from_portable(to_portable(value))) == canonical(value)


@given(values)
@example(datetime(999, 1, 1, tzinfo=timezone.utc))
def test_from_json_undoes_to_json(value: Any) -> None:
    """`from_json(to_json(v)) == v` for every value above (tuples inside keys stay tuples)."""
    assert canonical(from_json(to_json(value))) == canonical(value)


@given(values)
def test_json_is_one_line_of_utf8_that_any_parser_reads(value: Any) -> None:
    line = to_json(value)

    assert "\n" not in line
    json.loads(line.encode("utf-8"), parse_constant=lambda name: pytest.fail(f"bare {name}"))


@pytest.mark.parametrize(
    "tag",
    [
        {"~int": "0x1f"}, {"~str": b"abc"}, {"~map": [[1, 2]]}, {"$date": "2026-11-20T14:03:00.250Z"},
        {"$binary": {"base64": "", "subType": "00"}}, {"$numberDouble": "NaN"}, {"$numberLong": "7"},
        {"$gt": 1, "a": {"~int": "0x1"}}, {"~": {"$": None}},
    ],
    ids=str,
)  # fmt: skip
def test_a_users_dict_never_reads_back_as_anything_else(tag: dict[str, Any]) -> None:
    """A user's dict never reads back as anything else: keys that look like tags are always escaped."""
    assert from_portable(to_portable(tag)) == tag
    assert from_json(to_json(tag)) == tag


@pytest.mark.parametrize(
    "key", ["$gt", "~x", "a\0b", "\ud800", 1, 1.5, None, True, b"x", (1, "a")], ids=ascii
)
def test_a_key_that_a_store_cannot_hold_becomes_one_of_a_list_of_pairs(key: Any) -> None:
    """A plain key stays where it can be asked for, whatever stands beside it."""
    portable = to_portable({key: 1, "b": 2})

    assert portable.keys() == {"b", "~map"}
    assert portable["b"] == 2
    assert from_portable(portable) == {key: 1, "b": 2}


def test_pairs_of_all_keys_are_read_too() -> None:
    assert from_portable({"~map": [["$lr", 1], ["b", {"~int": "0x1"}]]}) == {"$lr": 1, "b": 1}


@pytest.mark.parametrize("body", [5, [5], [[1]], [[1, 2, 3]], ["ab"]], ids=str)
def test_pairs_that_are_none_are_no_value(body: Any) -> None:
    for document in ({"~map": body}, {"a": 1, "~map": body}):
        with pytest.raises(ValueError, match="~map"):
            from_portable(document)
        with pytest.raises(ValueError, match="~map"):
            from_json(json.dumps(document))


@pytest.mark.parametrize("key", ["a", "", "a.b", "a$", "naïve", "a~"])
def test_a_plain_key_stays_a_key(key: str) -> None:
    """Documents stay as readable as they were written."""
    assert to_portable({key: 1}) == {key: 1}


@pytest.mark.parametrize(
    ("number", "is_plain"), [(2**63 - 1, True), (-(2**63), True), (2**63, False), (-(2**63) - 1, False)]
)
def test_ints_of_64_bits_stay_numbers_and_others_become_text(number: int, is_plain: bool) -> None:
    assert (to_portable(number) == number) is is_plain
    assert from_portable(to_portable(number)) == number


def test_subclasses_are_kept_as_the_value_they_are() -> None:
    class Colour(IntEnum):
        RED = 3

    class Name(str):
        __slots__ = ()

    assert canonical(to_portable([Colour.RED, Name("x")])) == canonical([3, "x"])


@pytest.mark.parametrize("foreign", [object(), {1, 2}, 1j], ids=["object", "set", "complex"])
def test_what_is_no_value_of_a_record_is_a_type_error(foreign: object) -> None:
    with pytest.raises(TypeError, match="is not a value of a record"):
        to_portable({"a": [foreign]})


def test_a_date_of_any_zone_is_the_same_instant() -> None:
    moment = datetime(2026, 11, 20, 15, 3, 0, 250_000, tzinfo=timezone(timedelta(hours=1)))

    assert to_json(moment) == '{"$date":"2026-11-20T14:03:00.250Z"}'
    assert from_json(to_json(moment)) == moment


@pytest.mark.parametrize(
    "written",
    [
        '{"$date": 1793196180250}',
        '{"$date": "2026-10-28T14:03:00.250Z"}',
        '{"$date": "2026-10-28T15:03:00.250+01:00"}',
    ],
)
def test_dates_are_read_in_the_forms_that_people_write(written: str) -> None:
    assert from_json(written) == datetime(2026, 10, 28, 14, 3, 0, 250_000, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "NaN", "[Infinity]", '{"$date": "yesterday"}', '{"$date": "2026-11-20T14:03:00"}', '{"$date": null}',
        '{"$date": 99999999999999999999}', '{"$binary": 1}', '{"$binary": {}}', '{"$binary": {"base64": "!"}}',
        '{"$numberDouble": []}', '{"~int": 5}', '{"~int": "zz"}', '{"~str": 5}', '{"~map": 5}', '{"~map": [1]}',
        '{"~map": [[{}, 1]]}', "[" * 100_000,
    ],
    ids=lambda text: text[:40],
)  # fmt: skip
def test_senseless_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        from_json(text)
