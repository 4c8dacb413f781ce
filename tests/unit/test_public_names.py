"""The public surface: what `provd` exports is a promise, and changes on purpose only."""

from __future__ import annotations

import provd

EXPECTED = [
    "File",
    "Key",
    "Task",
    "__version__",
    "add_arguments",
    "count",
    "current_task_id",
    "depends_on",
    "flush",
    "loop",
    "query",
    "read_jsonl",
    "register",
    "task",
    "workflow",
    "wrap",
]


def test_the_public_names_are_these_and_sorted() -> None:
    assert EXPECTED == list(provd.__all__)
    assert EXPECTED == sorted(provd.__all__)


def test_every_public_name_can_be_had() -> None:
    for name in EXPECTED:
        assert getattr(provd, name) is not None


def test_dir_shows_every_public_name() -> None:
    """They are loaded on first use, and completion in a shell must show them before."""
    assert set(EXPECTED) <= set(dir(provd))


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(provd, "no_such_name")


def test_the_version_is_the_one_of_the_installed_distribution() -> None:
    from importlib.metadata import version

    assert version("provd") == provd.__version__
