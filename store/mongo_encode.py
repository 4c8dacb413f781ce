"""Messages as BSON, each encoded alone, so that a value MongoDB cannot hold harms only its own record.

Most records hold nothing odd and are encoded as they are, in C. A record that BSON refuses, or whose bytes show a
`~` or a `$` (it could hold a key that looks like a tag, or an operator), is rewritten by `values.to_portable` first.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timezone
from typing import Any

import bson
from bson.codec_options import CodecOptions, TypeDecoder, TypeRegistry
from bson.datetime_ms import DatetimeMS
from bson.errors import BSONError
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument

from provd.common import values
from provd.common.record import TIME_FIELDS, Message, Record
from provd.store import documents
from provd.store.interface import Refusal

#: MongoDB's ceiling of 16 MiB, less room for what a merge adds and for the update around it.
MAX_DOCUMENT_BYTES = (16 << 20) - (16 << 10)

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
_RAW_CODEC: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)


@dataclass(frozen=True, slots=True)
class Encoded:
    """A message ready to be written."""

    message: Message
    record_id: str
    record: Record
    raw: RawBSONDocument


def encode(message: Message, received_at: int) -> Encoded | Refusal:
    """Encode one message, or say why it can never be stored."""
    try:
        record_id = documents.record_id(message)
        record = documents.stated(message)
        raw = _to_bson(record_id, record, received_at)
    except _ENCODE_ERRORS as error:
        return Refusal(message, str(error) or type(error).__name__)
    if len(raw) > MAX_DOCUMENT_BYTES:
        return Refusal(message, f"{len(raw)} bytes as BSON, more than the {MAX_DOCUMENT_BYTES} of a document")
    return Encoded(message, record_id, record, RawBSONDocument(raw, _RAW_CODEC))


def _to_bson(record_id: str, record: Record, received_at: int) -> bytes:
    document = {"_id": record_id, **record, "received_at": received_at}
    times = {name: DatetimeMS(document[name]) for name in TIME_FIELDS if type(document.get(name)) is int}
    document |= times
    try:
        raw = bson.encode(document)
        if b"~" not in raw and b"$" not in raw:
            return raw
    except _ENCODE_ERRORS:
        pass  # the slow way below holds more, and says what it cannot hold
    portable = {name: values.to_portable(value) for name, value in document.items() if name not in times}
    return bson.encode(portable | times)
