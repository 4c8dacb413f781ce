"""Identifiers.

- A producer id is fresh for every process, also after a fork. It begins with its time of birth, so that records
  are inserted near one end of the `_id` index, and ends in 60 random bits.
- A task id is its producer's id, a dash and a counter of fixed width: unique for ever without asking anyone.
- A generated workflow id is random from the first character, so that a short prefix names one run.
- Ids given by people are 1-128 ASCII letters, digits and `._-`: they become part of keys and file names.
"""

from __future__ import annotations

import os
import re
import time

from provd.common.errors import InvalidId

#: Crockford's base 32 in lower case: no i, l, o, u, and in ASCII order, so text sorts as the number does.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"

_TIME_CHARS = 10
_RANDOM_CHARS = 12
_WORKFLOW_CHARS = 16

#: Letters, digits, dot, underscore and dash. `..` is harmless in a key; file names are made by `spool`, not from ids.
_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def _base32(number: int, width: int) -> str:
    chars = []
    for _ in range(width):
        chars.append(_ALPHABET[number & 31])
        number >>= 5
    return "".join(reversed(chars))


def _random(width: int) -> str:
    return _base32(int.from_bytes(os.urandom((width * 5 + 7) // 8), "big"), width)


def new_producer_id() -> str:
    """22 characters: the milliseconds of birth, then 60 random bits."""
    return _base32(time.time_ns() // 1_000_000, _TIME_CHARS) + _random(_RANDOM_CHARS)


def born_ms(producer_id: str) -> int | None:
    """The milliseconds of a producer's birth, as its id says; None for an id of another form."""
    stamp = producer_id[:_TIME_CHARS]
    if len(producer_id) != _TIME_CHARS + _RANDOM_CHARS or not set(stamp) <= set(_ALPHABET):
        return None
    number = 0
    for char in stamp:
        number = number * 32 + _ALPHABET.index(char)
    return number


def new_workflow_id() -> str:
    """16 random characters."""
    return _random(_WORKFLOW_CHARS)


def new_store_id() -> str:
    """16 random characters."""
    return _random(_WORKFLOW_CHARS)


def task_id(producer_id: str, counter: int) -> str:
    """The id of a producer's n-th task, such as `01kxt7…-0000002a`."""
    return f"{producer_id}-{counter:08x}"


def task_counter(producer_id: str, task: str) -> int | None:
    """The counter inside a task id of this producer, or None for a task of someone else."""
    head, _, tail = task.rpartition("-")
    if head != producer_id or len(tail) < 8:
        return None
    try:
        counter = int(tail, 16)
    except ValueError:
        return None
    return counter if task_id(producer_id, counter) == task else None


def check_id(value: str, what: str) -> str:
    """Return `value` if it may be a workflow or campaign id, else raise `InvalidId` that names `what`."""
    if not isinstance(value, str) or _GIVEN_ID.fullmatch(value) is None:
        shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
        raise InvalidId(f"{what} {shown}: use 1-128 ASCII letters, digits and . _ - only")
    return value
