"""Hypothesis strategies for everything a record may hold, and a comparison as strict as the promise."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from provd.common.values import is_plain_key

_FIRST = datetime(1, 1, 1, tzinfo=timezone.utc)
_MILLISECONDS = (datetime(9999, 12, 31, tzinfo=timezone.utc) - _FIRST) // timedelta(milliseconds=1)

#: Aware datetimes in whole milliseconds, over all years that Python has.
moments = st.integers(0, _MILLISECONDS).map(lambda ms: _FIRST + timedelta(milliseconds=ms))

#: Text with any code point, lone surrogates and NUL included.
texts = st.text(st.characters(), max_size=12)

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-(2**200), 2**200), st.floats(), texts, st.binary(max_size=12), moments
)  # fmt: skip

#: Keys that look like the tags of a stored form are the ones that could be mistaken.
_tag_like = st.sampled_from(
    ["~int", "~str", "~map", "$date", "$binary", "$numberDouble", "$numberLong", "~", "$", ""]
)

keys = st.recursive(
    _tag_like | scalars, lambda inner: st.tuples(inner, inner) | st.tuples(inner), max_leaves=4
)

values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)

#: What a frame carries as `used` or `generated`: values by name.
named_values = st.dictionaries(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), values, max_size=4
)


def canonical(value: Any) -> Any:
    """A form in which equal means the same type and the same value; NaN equals itself, and 1, True and 1.0 differ.

    A dict's keys are in their order, those that a store cannot hold behind the others.
    """
    if isinstance(value, dict):
        items = sorted(value.items(), key=lambda item: not is_plain_key(item[0]))
        return "dict", [(canonical(key), canonical(item)) for key, item in items]
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [canonical(item) for item in value]
    if isinstance(value, datetime):
        return "datetime", value
    if type(value) is int:
        return "int", value  # the text of a very long one is refused by Python
    return type(value).__name__, repr(value)
