"""How deeply a stored document may be nested.

- Both stores refuse the same, so that what one holds the other can take. MongoDB holds 180 levels, and an update around
  a document has some of its own; the embedded store reads JSON by functions that call themselves.
- What is counted is the portable form: below an odd key a value is two levels deeper than below a plain one.
- Nearly every document is known from its encoded bytes to be shallow, and is not walked.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from provd.common import values

#: Levels; what a producer records is at most 24 deep.
DEPTH_MAX = 150

#: The least that one level takes as BSON: length, type, name and two ends.
_BSON_LEVEL_BYTES = 8

_CONTAINERS = (dict, list, tuple)


def check_bson(document: dict[str, Any], raw: bytes) -> None:
    """Raise `ValueError` if a document is nested too deeply, of which `raw` is the BSON: each level shows the byte of
    its type there.
    """
    if len(raw) > DEPTH_MAX * _BSON_LEVEL_BYTES and raw.count(b"\x03") + raw.count(b"\x04") >= DEPTH_MAX:
        _check(document)


def check_json(document: dict[str, Any], text: str) -> None:
    """The same for a document of which this is the JSON."""
    if len(text) > DEPTH_MAX * 2 and text.count("{") + text.count("[") > DEPTH_MAX:
        _check(document)


def _check(document: dict[str, Any]) -> None:
    level: list[Any] = [document]
    for _ in range(DEPTH_MAX):
        level = [item for value in level for item in _items(value) if isinstance(item, _CONTAINERS)]
        if not level:
            return
    raise ValueError(f"it is nested more than {DEPTH_MAX} levels deep")


def _items(value: Any) -> Iterable[Any]:
    if not isinstance(value, dict):
        return value  # type: ignore[no-any-return]
    odd = [[key, item] for key, item in value.items() if not values.is_plain_key(key)]
    if not odd:
        return value.values()
    return [*(item for key, item in value.items() if values.is_plain_key(key)), odd]
