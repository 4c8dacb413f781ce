"""The one stated form of values that a plain JSON or BSON document cannot hold.

A record's values are: None, bool, int of any size, float with NaN and infinities, text with any code point, bytes,
aware datetime in whole milliseconds, list, and dict with keys of any of the hashable ones (or tuples of them).

portable form (what both stores keep)           stands for
{"~int": "0x1f…"}                               an int outside 64 bits
{"~str": <bytes>}                               text with lone surrogates, as UTF-8 with `surrogatepass`
{…, "~map": [[key, value], …]}                  a dict, of which these keys are not text, hold a NUL or a lone
                                                surrogate, or begin with `$` or `~`; the others stay beside it

JSON form, on top (MongoDB Extended JSON)
{"$date": "2026-11-20T14:03:00.250Z"}           an aware datetime (read also: a number of UTC milliseconds)
{"$binary": {"base64": "…", "subType": "00"}}   bytes
{"$numberDouble": "NaN"}                        NaN, Infinity, -Infinity

- `from_portable(to_portable(v)) == v` and `from_json(to_json(v)) == v` for every value above (tuples inside keys
  stay tuples; keys that are kept as pairs come behind the others).
- A user's dict never reads back as anything else: keys that look like tags are always escaped.
- A plain key stays where it can be asked for, whatever stands beside it.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from provd.common import clock

_INT64_MIN = -(1 << 63)
_INT64_MAX = (1 << 63) - 1

#: Types whose subclasses are recorded as the type itself.
_BASES: tuple[Any, ...] = (bool, int, float, str, bytes, dict, list, tuple)

#: The key of the pairs whose keys are not plain.
PAIRS = "~map"

_TAGS = frozenset({"~int", "~str", PAIRS})

#: Types that go into JSON as they are, or by the encoder's own question what to make of them.
_JSON = frozenset({type(None), bool, float, bytes, datetime})

_PLAIN = frozenset({type(None), bool, float, bytes, datetime})


def to_portable(value: Any) -> Any:
    """Rewrite what neither BSON nor JSON can hold; everything else is the same value, in new containers."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is str:
        return value if is_unicode(value) else {"~str": value.encode("utf-8", "surrogatepass")}
    if kind is int:
        return value if _INT64_MIN <= value <= _INT64_MAX else {"~int": hex(value)}
    if kind is dict:
        plain = {key: to_portable(item) for key, item in value.items() if is_plain_key(key)}
        if len(plain) < len(value):
            odd = ((key, item) for key, item in value.items() if not is_plain_key(key))
            plain[PAIRS] = [[to_portable(key), to_portable(item)] for key, item in odd]
        return plain
    if kind is list or kind is tuple:
        return [to_portable(item) for item in value]
    return _to_portable_subclass(value)


def _to_portable_subclass(value: Any) -> Any:
    for base in _BASES:
        if isinstance(value, base):
            return to_portable(base(value))
    raise TypeError(f"{type(value).__name__} is not a value of a record")


def from_portable(value: Any) -> Any:
    """Undo `to_portable`; raises `ValueError` for a tag with a body that we never write."""
    kind = type(value)
    if kind is dict:
        if len(value) == 1:
            ((key, item),) = value.items()
            if key in _TAGS:
                return _from_tag(key, item)
        plain = {key: from_portable(item) for key, item in value.items() if key != PAIRS}
        return plain if len(plain) == len(value) else {**plain, **_from_tag(PAIRS, value[PAIRS])}
    if kind is list:
        return [from_portable(item) for item in value]
    return value


def _from_tag(tag: str, body: Any) -> Any:
    if tag == "~int" and type(body) is str:
        return int(body, 16)
    if tag == "~str" and isinstance(body, bytes):
        return body.decode("utf-8", "surrogatepass")
    if tag == PAIRS and type(body) is list and all(type(pair) is list and len(pair) == 2 for pair in body):
        return {as_key(from_portable(key)): from_portable(item) for key, item in body}
    raise ValueError(f"the tag {tag} with a {type(body).__name__} in it")


def to_json(value: Any) -> str:
    """One line of tagged JSON."""
    if _is_json(value):  # nearly every record: a fifth of the time of the two rewritings below
        try:
            return _encode(value)
        except ValueError:
            pass  # a NaN, or an infinity
    return _encode(_to_extended(to_portable(value)))


def _make_encode() -> Callable[[Any], str]:
    """JSON's own encoder, made once: `JSONEncoder.encode` makes one of C for each call, which costs as much as it."""
    encoder = json.JSONEncoder(
        ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False, default=_to_extended
    )
    quote: Any = getattr(json.encoder, "encode_basestring", None)
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    try:
        encode = make(None, encoder.default, quote, None, ":", ",", False, False, False)
        encode({}, 0)
    except TypeError:  # a Python that has none, or another
        return encoder.encode
    return lambda value: "".join(encode(value, 0))


def from_json(text: str | bytes) -> Any:
    """Undo `to_json`; raises `ValueError` for what is not JSON or holds a tag with a senseless body."""
    try:
        return from_portable(json.loads(text, object_hook=_from_extended, parse_constant=_refuse_constant))
    except (TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"not a tagged JSON document: {error}") from error


def _is_json(value: Any) -> bool:
    """Whether JSON holds this as it is, but for dates and bytes; floats that are no numbers aside."""
    return _are_json((value,))


def _are_json(items: Iterable[Any]) -> bool:
    for item in items:
        kind = type(item)
        if kind in _JSON or (kind is str and item.isascii()):
            continue
        if kind is int:
            if not _INT64_MIN <= item <= _INT64_MAX:
                return False
        elif kind is dict:
            if not ((_plain_keys.issuperset(item) or _learn(item)) and _are_json(item.values())):
                return False
        elif kind is list or kind is tuple:
            if not _are_json(item):
                return False
        elif kind is not str or not is_unicode(item):
            return False
    return True


#: Keys that were found plain, so that those of every record are looked up and not looked at.
_plain_keys: set[str] = set()
_PLAIN_KEYS_MAX = 4096


def _learn(keys: Iterable[Any]) -> bool:
    if not all(map(is_plain_key, keys)):
        return False
    if len(_plain_keys) < _PLAIN_KEYS_MAX:
        _plain_keys.update(keys)
    return True


def is_unicode(text: str) -> bool:
    """Whether text can be encoded: it has no lone surrogates."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_plain_key(key: Any) -> bool:
    """Whether a key stays as it is, in the portable form and in JSON."""
    return type(key) is str and key[:1] not in ("$", "~") and "\0" not in key and is_unicode(key)


def as_key(key: Any) -> Any:
    """A decoded list as the hashable tuple it was when it was a key."""
    return tuple(as_key(part) for part in key) if isinstance(key, list) else key


def _to_extended(value: Any) -> Any:
    kind = type(value)
    if kind is dict:
        return {key: _to_extended(item) for key, item in value.items()}
    if kind is list:
        return [_to_extended(item) for item in value]
    if kind is float and not math.isfinite(value):
        return {"$numberDouble": "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"}
    if kind is bytes:
        return {"$binary": {"base64": base64.b64encode(value).decode("ascii"), "subType": "00"}}
    if kind is datetime:
        return {"$date": clock.to_iso(clock.from_datetime(value))}
    return value


_encode = _make_encode()


def _from_extended(document: dict[str, Any]) -> Any:
    if len(document) != 1:
        return document
    ((key, item),) = document.items()
    if key == "$date":
        return _read_date(item)
    if key == "$binary":
        return base64.b64decode(item["base64"], validate=True)
    if key == "$numberDouble":
        return float(item)
    if key == "$numberLong":
        return int(item)
    return document


def _read_date(item: Any) -> datetime:
    if isinstance(item, int):
        return clock.to_datetime(item)
    moment = datetime.fromisoformat(item.replace("Z", "+00:00"))
    if moment.tzinfo is None:
        raise ValueError(f"the date {item!r} has no time zone; write it as 2026-11-20T14:03:00Z")
    return moment


def _refuse_constant(name: str) -> Any:
    raise ValueError(f'bare {name} is not JSON; write {{"$numberDouble": "{name}"}}')
