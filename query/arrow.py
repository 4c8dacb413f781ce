"""Records as Arrow tables, in memory or in a Parquet file.

The type of a column depends on all its values, and never on their order:

all of them                                          type
`True`, `False`                                      bool
whole numbers within 64 bits                         int64
numbers, whole ones within 2^53                      double
text                                                 string
bytes                                                binary
times                                                timestamp, milliseconds, UTC
lists whose elements have one of these types         list of that
anything else: a mixture, whole numbers beyond,      string of tagged JSON (`provd.common.values`), `"text"` quoted;
lone surrogates, lists of mappings                   the field's metadata say so: `provd: json`
none                                                 string, but for fields of a record that have a type: theirs

- Memory holds one batch of rows; batches wait in a temporary file, each with the types of its own values.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from provd.common import clock, values
from provd.common.record import TIME_FIELDS, Record
from provd.query.columns import check_count, flatten, ordered
from provd.query.kinds import Kind, kind_of, unified

#: Rows, and bytes of text and the like, of one batch; and bytes and rows of one row group.
_BATCH_ROWS = 4096
_BATCH_BYTES = 16 << 20
_GROUP_ROWS = 65_536
_GROUP_BYTES = 32 << 20

_TYPES: dict[str, pa.DataType] = {
    "none": pa.null(), "bool": pa.bool_(), "int": pa.int64(), "long": pa.int64(), "float": pa.float64(),
    "text": pa.string(), "bytes": pa.binary(), "time": pa.timestamp("ms", tz="UTC"), "json": pa.string(),
}  # fmt: skip

#: What columns without a value are, where the record says it.
_KNOWN: dict[str, Kind] = {
    **dict.fromkeys(TIME_FIELDS, "time"),
    **dict.fromkeys(("duration", "clock_offset"), "float"),
    **dict.fromkeys(
        ("seq", "pid", "rank", "world_size", "attempt", "sent", "tasks_started", "tasks_ended"), "int"
    ),
}

_JSON = {b"provd": b"json"}


def to_table(records: Iterable[Record], columns: Sequence[str] = ()) -> pa.Table:
    """All records as one table in memory."""
    kinds: dict[str, Kind] = {}
    batches = list(_batches(records, kinds))
    schema = _schema(kinds, columns)
    return pa.Table.from_batches([_conform(batch, schema) for batch in batches], schema=schema)


def write_parquet(
    records: Iterable[Record], path: Path, columns: Sequence[str]
) -> tuple[int, tuple[str, ...]]:
    """Write records to a file; returns how many, and the columns."""
    kinds: dict[str, Kind] = {}
    rows = 0
    with tempfile.TemporaryFile(dir=path.parent, prefix=".provd-") as waiting:
        for batch in _batches(records, kinds):
            rows += batch.num_rows
            with pa.ipc.new_stream(waiting, batch.schema, options=_lz4()) as writer:
                writer.write_batch(batch)
        schema = _schema(kinds, columns)
        with pq.ParquetWriter(str(path), schema, compression="zstd") as writer:
            waiting.seek(0)
            for group in _groups(_waiting_batches(waiting), schema):
                writer.write_table(group)
    return rows, tuple(schema.names)


def _lz4() -> pa.ipc.IpcWriteOptions:
    return pa.ipc.IpcWriteOptions(compression="lz4")


def _waiting_batches(waiting: IO[bytes]) -> Iterator[pa.RecordBatch]:
    end = waiting.seek(0, 2)
    waiting.seek(0)
    while waiting.tell() < end:
        with pa.ipc.open_stream(waiting) as reader:
            yield from reader


def _groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """Tables of a size that readers like, made of small batches."""
    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        held.append(_conform(batch, schema))
        rows, size = rows + batch.num_rows, size + held[-1].nbytes
        if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
            yield pa.Table.from_batches(held, schema=schema)
            held, rows, size = [], 0, 0
    if held:
        yield pa.Table.from_batches(held, schema=schema)


# --- batches of their own types ------------------------------------------------------------------------------------


def _batches(records: Iterable[Record], kinds: dict[str, Kind]) -> Iterator[pa.RecordBatch]:
    """Records in batches; `kinds` is the kinds of all columns so far."""
    flat = map(flatten, records)
    while rows := list(_some(flat)):
        cells: dict[str, list[Any]] = {}
        for number, row in enumerate(rows):
            for name, value in row.items():
                column = cells.get(name)
                if column is None:
                    column = cells[name] = [None] * len(rows)
                column[number] = value
        arrays, fields = [], []
        for name, column in cells.items():
            kind = kind_of(column)
            kinds[name] = unified(kinds.get(name, "none"), kind)
            array, field = _held(name, column, kind)
            arrays.append(array)
            fields.append(field)
        check_count(kinds)
        if not fields:  # Arrow counts rows by a column
            arrays, fields = [pa.nulls(len(rows))], [pa.field("", pa.null())]
        yield pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def _some(flat: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows of the next batch."""
    size = 0
    for row in islice(flat, _BATCH_ROWS):
        yield row
        size += sum(len(value) for value in row.values() if isinstance(value, (str, bytes, list, dict)))
        if size >= _BATCH_BYTES:
            return


def _type(kind: Kind) -> pa.DataType:
    return pa.list_(_type(kind[1])) if isinstance(kind, tuple) else _TYPES[kind]


def _field(name: str, kind: Kind) -> pa.Field:
    return pa.field(name, _type(kind), metadata=_JSON if kind == "json" else None)


def _held(name: str, column: list[Any], kind: Kind) -> tuple[pa.Array, pa.Field]:
    """A column of a batch as it waits. Where whole numbers stand among doubles they wait as JSON, and stay told apart
    in case the column becomes JSON.
    """
    if kind == "json" or (_has(kind, "float") and any(_holds_int(value) for value in column)):
        texts = [None if value is None else values.to_json(value) for value in column]
        return pa.array(texts, pa.string()), pa.field(name, pa.string(), metadata=_JSON)
    plain = [_plain(value, kind) for value in column] if _has(kind, "time") else column
    return pa.array(plain, _type(kind)), pa.field(name, _type(kind))


def _holds_int(value: Any) -> bool:
    return any(map(_holds_int, value)) if isinstance(value, (list, tuple)) else type(value) is int


def _has(kind: Kind, wanted: str) -> bool:
    return _has(kind[1], wanted) if isinstance(kind, tuple) else kind == wanted


def _plain(value: Any, kind: Kind) -> Any:
    """A value as Arrow takes it: times as milliseconds."""
    if value is None:
        return None
    if isinstance(kind, tuple):
        return [_plain(item, kind[1]) for item in value]
    return clock.from_datetime(value) if kind == "time" else value


# --- batches of the table's types ----------------------------------------------------------------------------------


def _schema(kinds: Mapping[str, Kind], columns: Sequence[str]) -> pa.Schema:
    fields = []
    for name in ordered(kinds, columns):
        kind = kinds.get(name, "none")
        if kind == "none":
            kind = _KNOWN.get(name, "text")
        fields.append(_field(name, _without_none(kind)))
    return pa.schema(fields)


def _without_none(kind: Kind) -> Kind:
    """A list that was always empty is one of text."""
    if isinstance(kind, tuple):
        return (kind[0], _without_none(kind[1]))
    return "text" if kind == "none" else kind


def _conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """A batch with the columns and types of the table."""
    arrays = []
    for field in schema:
        place = batch.schema.get_field_index(field.name)
        if place < 0:
            arrays.append(pa.nulls(batch.num_rows, field.type))
        else:
            arrays.append(_cast(batch.column(place), batch.schema.field(place), field))
    if not arrays:
        return batch.select([])
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _cast(array: pa.Array, now: pa.Field, wanted: pa.Field) -> pa.Array:
    if _is_json(wanted):
        if _is_json(now):
            return array
        texts = [None if value is None else values.to_json(value) for value in _to_python(array)]
        return pa.array(texts, pa.string())
    if _is_json(now):  # numbers, of both kinds
        return pa.array(
            [_as_doubles(values.from_json(text or "null")) for text in array.to_pylist()], wanted.type
        )
    return array if array.type == wanted.type else array.cast(wanted.type)


def _as_doubles(value: Any) -> Any:
    return (
        [_as_doubles(item) for item in value]
        if isinstance(value, list)
        else None
        if value is None
        else float(value)
    )


def _is_json(field: pa.Field) -> bool:
    return field.metadata is not None and field.metadata.get(b"provd") == b"json"


def _to_python(array: pa.Array) -> list[Any]:
    """The values that an array was made of."""
    return [_with_times(value, array.type) for value in array.cast(_as_numbers(array.type)).to_pylist()]


def _as_numbers(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_list(kind):
        return pa.list_(_as_numbers(kind.value_type))
    return pa.int64() if pa.types.is_timestamp(kind) else kind


def _with_times(value: Any, kind: pa.DataType) -> Any:
    if value is None:
        return None
    if pa.types.is_list(kind):
        return [_with_times(item, kind.value_type) for item in value]
    return clock.to_datetime(value) if pa.types.is_timestamp(kind) else value
