"""Messages as BSON, each encoded alone, so that a value MongoDB cannot hold harms only its own record.

Most records hold nothing odd and are encoded as they are, in C. A record that BSON refuses, or whose bytes may hold a
key with a `~` or a `$` before it (it looks like a tag, or an operator), is rewritten by `values.to_portable` first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timezone
from typing import Any, NamedTuple

import bson
from bson.codec_options import CodecOptions, TypeDecoder, TypeRegistry
from bson.datetime_ms import DatetimeMS
from bson.errors import BSONError
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument

from provd.common import values
from provd.common.record import TIME_FIELDS, Message, Record
from provd.store import depth, documents
from provd.store.interface import Refusal

#: MongoDB's ceiling of 16 MiB, less room for what a merge adds and for the update around it.
MAX_DOCUMENT_BYTES = (16 << 20) - (16 << 10)

#: A key that looks like a tag or an operator, where a key stands: behind the byte that says its value's type. Numbers
#: may look like one, too: their records are rewritten for nothing.
_ODD_KEY = re.compile(rb"[\x01-\x13\x7f\xff][$~]")

_ENCODE_ERRORS = (BSONError, OverflowError, UnicodeError, TypeError, ValueError, RecursionError)


class _PlainInt(TypeDecoder):
    """Read 64-bit numbers as the `int` they were."""

    @property
    def bson_type(self) -> Any:
        """The type that is decoded."""
        return Int64

    def transform_bson(self, value: int) -> int:
        """Drop the wrapper that only tells 64 bits from 32."""
        return int(value)


CODEC: CodecOptions[Record] = CodecOptions(
    tz_aware=True, tzinfo=timezone.utc, type_registry=TypeRegistry([_PlainInt()])
)


class Encoded(NamedTuple):
    """A message ready to be written."""

    message: Message
    record_id: str
    raw: RawBSONDocument


def encode(message: Message, received_at: DatetimeMS) -> Encoded | Refusal:
    """Encode one message, or say why it can never be stored."""
    try:
        record, times = documents.stated(message)
        raw = _to_bson(record, times, received_at)
        depth.check_bson(record, raw)
    except _ENCODE_ERRORS as error:
        return Refusal(message, str(error) or type(error).__name__)
    if len(raw) > MAX_DOCUMENT_BYTES:
        return Refusal(message, f"{len(raw)} bytes as BSON, more than the {MAX_DOCUMENT_BYTES} of a document")
    return Encoded(message, record["_id"], RawBSONDocument(raw))


def encode_whole(record_id: str, record: Record) -> RawBSONDocument:
    """Encode a record that has its `received_at`. Raises `ValueError`."""
    try:
        times = [name for name in TIME_FIELDS if name in record and name != "received_at"]
        raw = _to_bson({**record, "_id": record_id}, times, DatetimeMS(record["received_at"]))
        depth.check_bson(record, raw)
    except _ENCODE_ERRORS as error:
        raise ValueError(str(error) or type(error).__name__) from error
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise ValueError(f"{len(raw)} bytes as BSON, more than the {MAX_DOCUMENT_BYTES} of a document")
    return RawBSONDocument(raw)


def _has_odd_key(raw: bytes) -> bool:
    """Whether there may be one; never says no where there is. The bytes are looked for first: that is faster."""
    return (b"~" in raw or b"$" in raw) and _ODD_KEY.search(raw) is not None


def _to_bson(document: Record, times: Sequence[str], received_at: DatetimeMS) -> bytes:
    """Encode a record with its times as dates, which it then has."""
    for name in times:
        if document[name] is not None:
            document[name] = DatetimeMS(document[name])
    document["received_at"] = received_at
    try:
        raw = bson.encode(document)
        if not _has_odd_key(raw):
            return raw
    except _ENCODE_ERRORS:
        pass  # the slow way below holds more, and says what it cannot hold
    is_ready = {*times, "received_at"}
    portable = {
        name: value if name in is_ready else values.to_portable(value) for name, value in document.items()
    }
    return bson.encode(portable)
