"""Tables of records, read back by readers that are not ours."""

from __future__ import annotations

import csv
import errno
import io
import math
import os
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provd.common import values
from provd.common.errors import OutputError, StoreUnavailable, UsageError
from provd.producer.capture import convert
from provd.query import arrow, tabular
from provd.query.columns import COLUMNS_MAX, cell_text, column_name, flatten, ordered, paths_to
from provd.query.output_file import replaced
from tests.odd_values import anything
from tests.record_values import keys, moments, named_values

_MOMENT = datetime(2026, 11, 20, 14, 3, 0, 250_000, tzinfo=timezone.utc)


def as_csv(records: list[dict[str, Any]], **options: Any) -> list[list[str]]:
    stream = io.StringIO(newline="")
    tabular.write_csv(records, stream, **options)
    return list(csv.reader(io.StringIO(stream.getvalue(), newline=""), strict=True))


def as_parquet(records: list[dict[str, Any]], path: Path, **options: Any) -> pa.Table:
    tabular.write_parquet(records, path, **options)
    return pq.read_table(path)


@given(st.lists(named_values, max_size=4))
def test_any_records_become_a_csv_that_another_reader_reads(records: list[dict[str, Any]]) -> None:
    rows = as_csv(records, columns=("task_id",))

    header, body = rows[0], rows[1:]
    assert len(header) == len(set(header))
    assert len(body) == len(records)
    for record, row in zip(records, body):
        cells = {name: text for name, text in zip(header, row) if text}
        # the csv module gives a lone \r, \n or \r\n back as it was
        assert cells == {name: text for name, text in texts(record).items() if text}


@given(st.lists(anything, min_size=1, max_size=3))
def test_whatever_a_program_passed_becomes_a_table(passed: list[Any]) -> None:
    records = [{"task_id": str(number), "used": {"x": convert(value)}} for number, value in enumerate(passed)]

    table = arrow.to_table(records)
    rows = as_csv(records)

    assert table.num_rows == len(records)
    assert table.column("task_id").to_pylist() == [row[0] for row in rows[1:]]
    assert set(table.column_names) == set(rows[0])
    table.validate(full=True)


def texts(record: dict[str, Any]) -> dict[str, str]:
    return {name: cell_text(value) for name, value in flatten(record).items()}


@given(st.lists(named_values, max_size=4))
def test_any_records_become_a_table_that_holds_every_value(records: list[dict[str, Any]]) -> None:
    table = arrow.to_table(records)

    assert table.num_rows == len(records) or not table.column_names
    for number, record in enumerate(records):
        row = {name: table.column(name)[number] for name in table.column_names}
        flat = flatten(record)
        for name, scalar in row.items():
            assert_same(scalar, flat.get(name), table.schema.field(name))


def assert_same(scalar: Any, value: Any, field: pa.Field) -> None:
    if value is None:
        assert not scalar.is_valid
    elif field.metadata == {b"provd": b"json"}:
        assert scalar.as_py() == values.to_json(value)
    elif pa.types.is_timestamp(field.type):
        assert values.to_json(value) == values.to_json(arrow._with_times(scalar.value, field.type))
    elif not pa.types.is_list(field.type):
        read = scalar.as_py()
        assert read == value or (math.isnan(read) and math.isnan(value))
        assert type(read) is type(value) or (type(read), type(value)) == (float, int)


@given(st.lists(named_values, min_size=2, max_size=5), st.randoms())
def test_the_columns_and_their_types_do_not_depend_on_the_order_of_rows(
    records: list[dict[str, Any]], random: Any
) -> None:
    other = list(records)
    random.shuffle(other)

    assert arrow.to_table(records).schema.equals(arrow.to_table(other).schema, check_metadata=True)


@given(st.lists(named_values, min_size=2, max_size=5))
def test_a_table_does_not_depend_on_how_its_rows_were_batched(records: list[dict[str, Any]]) -> None:
    whole = arrow.to_table(records)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrow, "_BATCH_ROWS", 1)
        single = arrow.to_table(records)

    assert single.schema.equals(whole.schema, check_metadata=True)
    assert repr(single.to_pylist()) == repr(whole.to_pylist())


@given(st.lists(st.lists(keys, min_size=1, max_size=3), min_size=2, max_size=2))
def test_no_two_paths_share_a_column(paths: list[list[Any]]) -> None:
    first, second = (named(["used", *path]) for path in paths)

    assert (first == second) == (
        [values.to_json(_key(key)) for key in paths[0]] == [values.to_json(_key(key)) for key in paths[1]]
    )
    assert paths_to(first)[-1] == "used"


def _key(key: Any) -> Any:
    return list(key) if isinstance(key, tuple) else key


def named(path: list[Any]) -> str:
    name = ""
    for key in path:
        name = column_name(name, key)
    return name


def test_nested_fields_are_named_as_a_where_expression_writes_them() -> None:
    record = {"used": {"lr": 0.1, "model.pt": {"size": 3}, "learning rate": 1, 3: "x"}, "generated": {}}

    assert flatten(record) == {
        "used.lr": 0.1,
        'used["model.pt"].size': 3,
        'used["learning rate"]': 1,
        "used[3]": "x",
    }


def test_columns_asked_for_stand_first_even_without_a_value_and_the_rest_as_in_a_record() -> None:
    found = ["zebra", "duration", "used.lr", "task_id", 'generated["a.b"]', "used.epochs"]

    assert ordered(found, ("generated", "hostname")) == [
        'generated["a.b"]', "hostname", "task_id", "used.epochs", "used.lr", "duration", "zebra",
    ]  # fmt: skip


def test_csv_follows_rfc_4180_and_tells_no_value_from_empty_text() -> None:
    stream = io.StringIO(newline="")

    tabular.write_csv([{"a": 'say "x", y', "b": ""}, {"a": "two\r\nlines"}, {"b": True}], stream)

    assert stream.getvalue() == 'a,b\r\n"say ""x"", y",""\r\n"two\r\nlines",\r\n,true\r\n'


def test_values_of_a_csv_are_written_as_they_are() -> None:
    rows = as_csv(
        [{"a": "=1+1", "b": -1, "c": 1 << 70, "d": float("nan"), "e": _MOMENT, "f": [1, "x"], "g": b"\0"}]
    )

    assert rows[1] == [
        "=1+1", "-1", '{"~int":"0x400000000000000000"}', "NaN", "2026-11-20T14:03:00.250Z", '[1,"x"]',
        '{"$binary":{"base64":"AA==","subType":"00"}}',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("column", "kind", "read"),
    [
        ([1, None, 2], "int64", [1, None, 2]),
        ([1, 0.5, None], "double", [1.0, 0.5, None]),
        ([(1 << 53) + 1, 0.5], "string", ["9007199254740993", "0.5"]),
        ([1 << 63, 1], "string", ['{"~int":"0x8000000000000000"}', "1"]),
        ([True, 1], "string", ["true", "1"]),
        (["a", 1], "string", ['"a"', "1"]),
        (["a", None], "string", ["a", None]),
        ([b"a"], "binary", [b"a"]),
        ([_MOMENT], "timestamp[ms, tz=UTC]", [_MOMENT]),
        ([[1, 2], [0.5], []], "list<element: double>", [[1.0, 2.0], [0.5], []]),
        ([[1, "a"], [2]], "string", ['[1,"a"]', "[2]"]),
        ([[{"a": 1}]], "string", ['[{"a":1}]']),
    ],
)
def test_the_type_of_a_column_holds_all_its_values(
    tmp_path: Path, column: list[Any], kind: str, read: list[Any]
) -> None:
    table = as_parquet([{"task_id": "t", "x": value} for value in column], tmp_path / "t.parquet")

    assert str(table.schema.field("x").type) == kind
    assert table.column("x").to_pylist() == read


def test_known_fields_keep_their_type_where_no_record_has_them(tmp_path: Path) -> None:
    table = as_parquet([], tmp_path / "t.parquet", columns=("task_id", "started_at", "duration", "rank"))

    assert [str(field.type) for field in table.schema] == [
        "string",
        "timestamp[ms, tz=UTC]",
        "double",
        "int64",
    ]


@given(st.lists(moments, min_size=1, max_size=3))
def test_times_of_all_years_stay_the_same(found: list[datetime]) -> None:
    table = arrow.to_table([{"x": moment} for moment in found])

    assert arrow._to_python(table.column("x").combine_chunks()) == found


def test_keys_that_differ_from_task_to_task_are_refused_with_their_place() -> None:
    records = ({"used": {f"sample {number}": 1}} for number in range(COLUMNS_MAX + 1))

    with pytest.raises(UsageError, match="'used'"):
        as_csv(records)  # type: ignore[arg-type]


class TestReplaced:
    def test_the_file_appears_when_all_is_written(self, folder: Path) -> None:
        path = folder / "out"

        with replaced(path) as temporary:
            temporary.write_text("all")
            assert not path.exists()

        assert path.read_text() == "all"
        assert os.listdir(folder) == ["out"]

    def test_an_error_leaves_what_was_there(self, folder: Path) -> None:
        path = folder / "out"
        path.write_text("before")

        with pytest.raises(KeyboardInterrupt), replaced(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

        assert path.read_text() == "before"
        assert os.listdir(folder) == ["out"]

    def test_a_link_stays_and_its_file_keeps_its_permissions(self, tmp_path: Path) -> None:
        real, link = tmp_path / "real", tmp_path / "link"
        real.write_text("before")
        real.chmod(0o640)
        link.symlink_to(real)

        with replaced(link) as temporary:
            temporary.write_text("after")

        assert link.is_symlink()
        assert (real.read_text(), real.stat().st_mode & 0o777) == ("after", 0o640)

    @pytest.mark.parametrize("wrong", ["/dev/null", "folder", "missing/out"])
    def test_what_cannot_be_replaced_is_refused_at_once(self, tmp_path: Path, wrong: str) -> None:
        (tmp_path / "folder").mkdir()

        with pytest.raises(UsageError), replaced(tmp_path / wrong):
            pytest.fail("nothing may be written")

    def test_a_folder_that_refuses_is_an_output_error(self) -> None:
        with pytest.raises(OutputError), replaced("/proc/out"):
            pytest.fail("nothing may be written")

    def test_a_full_disk_is_an_output_error_and_leaves_nothing(self, folder: Path) -> None:
        with pytest.raises(OutputError, match="No space left"), replaced(folder / "out"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        assert os.listdir(folder) == []

    @pytest.mark.parametrize("error", [UsageError("mine"), StoreUnavailable("mongodb://h", "mine")])
    def test_errors_of_ours_pass(self, folder: Path, error: Exception) -> None:
        with pytest.raises(type(error), match="mine"), replaced(folder / "out"):
            raise error

        assert os.listdir(folder) == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with nothing in it."""
    (tmp_path / "exports").mkdir()
    return tmp_path / "exports"


def failing() -> Iterator[dict[str, Any]]:
    yield {"a": 1}
    raise ValueError("the store went away")


def test_a_parquet_file_that_fails_half_way_leaves_nothing(folder: Path) -> None:
    with pytest.raises(ValueError, match="went away"):
        tabular.write_parquet(failing(), folder / "t.parquet")

    assert os.listdir(folder) == []
