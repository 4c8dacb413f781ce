"""`provd.testing`, as users' tests use it."""

from __future__ import annotations

import pytest

import provd
from provd.testing import captured


@provd.task(outputs="total")
def add(*numbers: int) -> int:
    """Something to capture."""
    return sum(numbers)


def test_what_a_block_records_is_there_when_it_has_ended() -> None:
    with captured() as capture, provd.workflow("test", args={"n": 2}):
        add(1, 2)
        add(3, 4)

    assert [task["generated"] for task in capture.tasks("add")] == [{"total": 3}, {"total": 7}]
    assert [task["used"] for task in capture.tasks()] == [{"numbers": [1, 2]}, {"numbers": [3, 4]}]
    (workflow,) = capture.workflows()
    assert (workflow["name"], workflow["status"], workflow["args"]) == ("test", "FINISHED", {"n": 2})


def test_blocks_do_not_see_each_other_and_errors_pass_through() -> None:
    with captured() as one, pytest.raises(ValueError, match="no"), provd.workflow("failing"):
        raise ValueError("no")
    with captured() as other:
        add(1)

    assert one.workflows()[0]["status"] == "ERROR"
    assert other.messages == []


def test_capturing_does_not_depend_on_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVD_ENABLED", "0")

    with captured() as capture, provd.workflow("test"):
        add(1)

    assert len(capture.tasks()) == 1
