"""Values, as they were at the moment of the call.

- What cannot change (numbers, short text, None) is kept by reference and packed by the sender. Everything else is packed
  at once, so that a later change by the user's code does not reach the record.
- Rows of plain values, and of flat or once nested lists, tuples and dicts of them, are packed without a walk: their
  types are compared in C, and so are their keys with those known to be no credential. Only what may need more (other
  types, a cap, a URL, a new key) is walked through.
- A row that is packed is never larger than a message may be.
- Whatever a value does, recording it never raises; `KeyboardInterrupt` alone passes, for it is the user's.

What the walk makes of a value is told in `provd.producer.walk`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from provd.common import packing
from provd.producer import objects, sizing
from provd.producer.interrupts import pass_on
from provd.producer.rules import Rules, current_rules
from provd.producer.secrets import hide
from provd.producer.walk import Walk

#: Immutable types that msgpack packs as they are.
SCALARS = frozenset({int, float, bool, type(None)})

#: Types that are packed as they are, if no cap is reached.
_ATOMS = frozenset({int, float, bool, type(None), str, bytes})

#: Types that may be packed as they are, if what is in them may.
_CONTAINERS = frozenset({list, tuple, dict})

_TEXT = frozenset({str})

#: Atoms of any length.
_LONG = frozenset({str, bytes})

#: Text up to this length is kept by reference; longer text is packed at once, so that the buffer's size is known.
SHORT_TEXT = 256

#: Containers with more items are walked through.
_FLAT_MAX = 10_000
_NESTED_MAX = 64
_INNER_MAX = 1_000

#: Names that a row may have in common with others: more of them, or longer ones, stand in the row itself.
_NAMES_MAX = 64
_NAME_MAX = 128

#: A row of values: by reference when none of them can change, else packed.
Frozen = tuple[Any, ...] | bytes


def _freezing(*, made: bool) -> Callable[[tuple[Any, ...]], Frozen]:
    def freeze(values: tuple[Any, ...]) -> Frozen:
        try:
            for value in values:
                kind = type(value)
                if kind not in SCALARS and (kind is not str or len(value) > SHORT_TEXT or "://" in value):
                    return _pack_row(values, made=made)
        except Exception as error:  # noqa: BLE001 - looking a class up runs the code of its metaclass
            pass_on(error)
            return _pack_row(values, made=made)
        return values

    return freeze


#: The values of one row, safe from later changes.
freeze = _freezing(made=False)

#: The same of what a task hands on.
freeze_made = _freezing(made=True)


def freeze_map(items: Mapping[str, Any], *, made: bool = False) -> bytes:
    """A map of values, packed; `made` where a task hands them on."""
    now = current_rules()
    try:
        named = dict(items)
        packed = _pack_plain(named, now)
        if packed is not None:
            return packed
        return _fitted(_pack_map(Walk(now, made=made).convert_map(named)), now)
    except Exception as error:  # noqa: BLE001 - a mapping of the user's may raise anything
        pass_on(error)
        return packing.pack({"…": _unreadable(items, error)})


def convert(value: Any) -> Any:
    """What a record says of `value`: at most a quarter of what a message may hold."""
    now = current_rules()
    try:
        converted = Walk(now).convert(value)
        packed = packing.pack(converted)
        limit = now.message_max // 4
        if len(packed) + sizing.OVERHEAD <= limit:
            return converted
        return sizing.fit_value(packing.pack([converted]), limit)[0] if type(converted) not in _CONTAINERS else (
            sizing.fit_value(packed, limit)
        )  # fmt: skip
    except Exception as error:  # noqa: BLE001 - a value's own methods may raise anything
        pass_on(error)
        return _unreadable(value, error)


def freeze_named(names: tuple[str, ...], values: tuple[Any, ...]) -> Frozen:
    """What a task hands on under these names, without their credentials."""
    positions = current_rules().secrets.positions(names)
    return freeze_made(hide_at(positions, values) if positions else values)


def freezer(names: tuple[str, ...], *, made: bool = False) -> Callable[[tuple[Any, ...]], Frozen]:
    """`freeze`, or `freeze_made`, for many rows of the same names."""
    positions = current_rules().secrets.positions(names)
    plain = freeze_made if made else freeze
    return (lambda values: plain(hide_at(positions, values))) if positions else plain


def repack(values: tuple[Any, ...]) -> bytes:
    """A row that was kept by reference, packed within the caps."""
    return _pack_row(values)


def hide_at(positions: tuple[int, ...], values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The row with the credentials at these places masked."""
    hidden = list(values)
    for position in positions:
        hidden[position] = hide(hidden[position])
    return tuple(hidden)


def can_share(names: tuple[Any, ...]) -> bool:
    """Whether these keys of a result may stand in a shape, which every frame repeats."""
    return (
        len(names) <= _NAMES_MAX
        and _TEXT.issuperset(map(type, names))
        and max(map(len, names), default=0) <= _NAME_MAX
    )


def _pack_row(values: tuple[Any, ...], *, made: bool = False) -> bytes:
    now = current_rules()
    try:
        for value in values:
            if not (_fits((value,), now) if type(value) in _ATOMS else _is_plain(value, now)):
                break
        else:
            packed = packing.pack(values)
            if _is_final(packed, now):
                return packed
    except Exception as error:  # noqa: BLE001 - another thread changes a container, or a metaclass raises: walk
        pass_on(error)
    try:
        walk = Walk(now, made=made)
        return _fitted(packing.pack([walk.convert(value) for value in values]), now)
    except Exception as error:  # noqa: BLE001 - a value's own methods may raise anything
        pass_on(error)
        return packing.pack([_unreadable(value, error) for value in values])


def _pack_plain(named: dict[Any, Any], now: Rules) -> bytes | None:
    """The map, if it can be packed as it is."""
    try:
        if _is_plain(named, now):
            packed = packing.pack(named)
            return packed if _is_final(packed, now) else None
    except Exception as error:  # noqa: BLE001 - as for rows
        pass_on(error)
    return None


def _is_plain(value: Any, now: Rules) -> bool:
    """Whether a value can be packed as it is: a container of atoms, or of such containers."""
    items = _items_of(value, _FLAT_MAX, now)
    if items is None:
        return False
    if _ATOMS.issuperset(map(type, items)):
        return _fits(items, now)
    if len(items) > _NESTED_MAX or now.depth_max < 2:
        return False
    return all(_fits((item,), now) if type(item) in _ATOMS else _is_flat(item, now) for item in items)


def _is_flat(value: Any, now: Rules) -> bool:
    items = _items_of(value, _INNER_MAX, now)
    return items is not None and _ATOMS.issuperset(map(type, items)) and _fits(items, now)


def _items_of(value: Any, most: int, now: Rules) -> Collection[Any] | None:
    """What is in a container that has no more than `most` items, and plain keys if it has keys; None otherwise."""
    kind = type(value)
    if kind not in _CONTAINERS or len(value) > most or len(value) > now.items_max:
        return None
    if kind is not dict:
        items: Collection[Any] = value
        return items
    return value.values() if _has_plain_keys(value, now) else None


def _has_plain_keys(value: dict[Any, Any], now: Rules) -> bool:
    return (
        _TEXT.issuperset(map(type, value))
        and now.secrets.innocent.issuperset(value)
        and sum(map(len, value)) <= now.text_max
    )


def _fits(atoms: Collection[Any], now: Rules) -> bool:
    """Whether text and bytes are short enough to be packed for a look: a gigabyte is not copied to find it too long."""
    if _LONG.isdisjoint(map(type, atoms)):
        return True
    return sum([len(atom) for atom in atoms if type(atom) in _LONG]) <= now.text_max


def _is_final(packed: bytes, now: Rules) -> bool:
    """Whether no cap can have been passed (no text is longer than its row), and there is no URL to look into."""
    return (
        len(packed) <= now.text_max
        and len(packed) + sizing.OVERHEAD <= now.message_max
        and b"://" not in packed
    )


def _pack_map(converted: dict[Any, Any]) -> bytes:
    if any(type(key) is tuple for key in converted):
        return packing.pack(packing.pack_odd_map(converted))
    return packing.pack(converted)


def _fitted(packed: bytes, now: Rules) -> bytes:
    if len(packed) + sizing.OVERHEAD <= now.message_max:
        return packed
    return sizing.fit([packed], now.message_max)[0]


def _unreadable(value: Any, error: Exception) -> dict[str, str]:
    return {"type": objects.type_name(value), "unreadable": objects.type_name(error)}
