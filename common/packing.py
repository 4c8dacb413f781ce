"""One value of a record as msgpack, and back.

- Every value that a record can hold comes back as it was: ints of any size and maps whose keys are containers travel as
  extensions.
- What is allocated for bytes that are not ours is bounded by their number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgpack

_EXT_INT = 1
_EXT_MAP = 2

#: Bytes a packer for one value begins with; msgpack's own 256 KiB cost more than the packing.
_SMALL = 1024

#: Odd maps inside one another; a record's values are at most 24 deep.
_ODD_DEPTH_MAX = 32

#: Bytes that are unpacked as they come; longer ones are walked once before.
_UNWALKED_MAX = 4096

#: What reading bytes that are not ours may raise.
UNPACK_ERRORS = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError)


def pack_foreign(value: Any) -> Any:
    """Msgpack's hook for what it has no type for: ints outside 64 bits."""
    if isinstance(value, int):
        return msgpack.ExtType(_EXT_INT, hex(value).encode())
    raise TypeError(f"{type(value).__name__} is not a value of a record")


def pack_odd_map(items: Mapping[Any, Any]) -> Any:
    """A map some of whose keys are containers, as the extension that carries it."""
    return msgpack.ExtType(_EXT_MAP, pack([[key, value] for key, value in items.items()]))


def new_packer() -> msgpack.Packer:
    """A packer for the values of a record. Not for use by two threads at once."""
    return msgpack.Packer(default=pack_foreign, datetime=True, unicode_errors="surrogatepass")


def pack(value: Any) -> bytes:
    """Pack one value; raises `TypeError` for what is not a value of a record."""
    return msgpack.packb(  # type: ignore[no-any-return]
        value, default=pack_foreign, datetime=True, unicode_errors="surrogatepass", buf_size=_SMALL
    )


def _extension_at(depth: int) -> Callable[[int, bytes], Any]:
    """Msgpack's hook inside this many odd maps: without a bound, a few KiB of them exhaust the C stack."""

    def read(code: int, data: bytes) -> Any:
        if code == _EXT_INT:
            return int(data, 16)
        if code != _EXT_MAP:
            raise ValueError(f"unknown extension type {code}")
        if depth == _ODD_DEPTH_MAX:
            raise ValueError("maps inside one another without end")
        from provd.common.values import as_key  # rare: it would bring `json` into every producer's start

        return {as_key(pair[0]): pair[1] for pair in _unpack(data, _HOOKS[depth + 1])}

    return read


_HOOKS = tuple(map(_extension_at, range(_ODD_DEPTH_MAX + 1)))


def unpack(data: bytes) -> Any:
    """Unpack one value; what is allocated is bounded by the data at hand, whatever lengths it claims."""
    return _unpack(data, _HOOKS[0])


def _unpack(data: bytes, hook: Callable[[int, bytes], Any]) -> Any:
    if len(data) > _UNWALKED_MAX:
        # Each array inside an array may claim as many items as there are bytes: see them all before making room.
        walker = msgpack.Unpacker(max_buffer_size=0)
        walker.feed(data)
        try:
            walker.skip()
        except msgpack.OutOfData:
            raise ValueError("it claims more items than it has") from None
    return msgpack.unpackb(
        data, ext_hook=hook, timestamp=3, strict_map_key=False, unicode_errors="surrogatepass"
    )
