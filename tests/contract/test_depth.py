"""How deep a record may be: the same in both stores, and one that is too deep harms only itself (G4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from provd.store.depth import DEPTH_MAX
from provd.store.interface import Store
from tests.contract.messages import START_MS, task

KINDS: dict[str, Callable[[Any], Any]] = {
    "arrays": lambda inner: [inner],
    "maps": lambda inner: {"k": inner},
    "odd maps": lambda inner: {1: inner},
    "maps beside odd keys": lambda inner: {"k": inner} if _is_shallow(inner) else {"k": inner, 1: 1},
}

#: Levels of the portable form.
LEVELS = {"arrays": 1, "maps": 1, "odd maps": 3, "maps beside odd keys": 1}


def _is_shallow(value: Any) -> bool:
    """Whether a pair beside it would be deeper."""
    return not isinstance(value, dict) or not isinstance(value["k"], dict)


def nested(kind: str, levels: int) -> Any:
    value: Any = 1
    for _ in range(levels // LEVELS[kind]):
        value = KINDS[kind](value)
    return value


@pytest.mark.parametrize("status", ["FINISHED", "RUNNING"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_record_as_deep_as_allowed_is_stored_merged_and_read(store: Store, kind: str, status: str) -> None:
    deepest = nested(kind, DEPTH_MAX - 3)  # the document, `used` and `x` are levels, too
    store.write([task(1, number=1, status=status, used={"x": deepest})], received_at=START_MS)

    written = store.write([task(2, number=1, used={"x": deepest, "y": 1})], received_at=START_MS)

    assert written.refused == ()
    (found,) = store.find("tasks", {})
    assert found["used"]["x"] == deepest


@pytest.mark.parametrize("levels", [DEPTH_MAX + 3, 190, 300, 480, 500, 700])
@pytest.mark.parametrize("kind", KINDS)
def test_a_record_that_is_too_deep_is_refused_and_the_others_are_read(
    store: Store, kind: str, levels: int
) -> None:
    bad = task(2, number=2, used={"x": nested(kind, levels)})

    written = store.write([task(1, number=1), bad, task(3, number=3)], received_at=START_MS)

    assert [one.message.seq for one in written.refused] == [2]
    assert sorted(one["seq"] for one in store.find("tasks", {})) == [1, 3]
