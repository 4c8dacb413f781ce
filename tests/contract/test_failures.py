"""The failures of a run, in groups, as either store tells them."""

from __future__ import annotations

import random

from provd.common.record import Status
from provd.query.failure_groups import GROUPS_MAX
from provd.query.summary import ErrorGroup, summarise_run
from provd.store.interface import Store
from tests.builders import ProducerBuilder

_RAISED = 'Traceback (most recent call last):\n  File "load.py", line {line}, in load\n    read()\n{error}\n'
_UNREADABLE = "OSError: cannot read /data/part-{:05}.h5"


def _failed(part: ProducerBuilder, activity: str, error: str, line: int = 0) -> str:
    raised = _RAISED.format(line=line, error=error) if line else None
    return part.task(activity, Status.ERROR, stderr=error, traceback=raised)


def test_failures_alike_are_one_group_and_hide_no_other(store: Store) -> None:
    # Given many failures that differ in their numbers, and few others among them
    part = ProducerBuilder("run", "p1").open()
    examples = [_failed(part, "check", "part 0 is torn"), _failed(part, "load", _UNREADABLE.format(0), 7)]
    for number in range(1, 100):
        _failed(part, "load", _UNREADABLE.format(number), 7)
        _failed(part, "check", f"part {number} is torn")
    exits = _failed(part, "load", "SystemExit: 2")
    elsewhere = _failed(part, "load", _UNREADABLE.format(1), 9)
    kind = _failed(part, "load", "ValueError: bad\nvalue 3", 7)
    silent = part.task("load", Status.ERROR, stderr="\n")
    # in any order
    random.Random(0).shuffle(part.messages)
    part.write(store)

    # When
    summary = summarise_run(store, "run")

    # Then
    assert [(error.count, error.activity_id, error.message, error.exception, error.frame) for error in summary.errors] == [
        (100, "check", "part 0 is torn", None, None),
        (100, "load", "OSError: cannot read /data/part-00000.h5", "OSError", "load.py:7"),
        (1, "load", "(no message)", None, None),
        (1, "load", "OSError: cannot read /data/part-00001.h5", "OSError", "load.py:9"),
        (1, "load", "SystemExit: 2", "SystemExit", None),
        (1, "load", "ValueError: bad value 3", "ValueError", "load.py:7"),
    ]  # fmt: skip
    assert [error.task_id for error in summary.errors] == [*examples, silent, elsewhere, exits, kind]
    assert summary.errors[1].traceback == _RAISED.format(line=7, error=_UNREADABLE.format(0))
    assert summary.other_errors == 0


def test_the_groups_have_a_ceiling_and_every_failure_is_counted(store: Store) -> None:
    part = ProducerBuilder("run", "p1").open()
    for number in range(GROUPS_MAX + 20):
        word = "".join(chr(97 + int(digit)) for digit in str(number))
        _failed(part, "load", f"ValueError: it said {word}")
    part.write(store)

    summary = summarise_run(store, "run")

    assert len(summary.errors) == GROUPS_MAX
    assert all(isinstance(error, ErrorGroup) and error.count == 1 for error in summary.errors)
    assert summary.other_errors == 20
