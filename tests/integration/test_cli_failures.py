"""How failures are shown: by `provd tasks`, and on the page of a run."""

from __future__ import annotations

import json

import pytest

from provd.common.record import Status
from provd.store.interface import Store
from tests.builders import ProducerBuilder
from tests.conftest import StartProvd
from tests.integration.commands import Provd
from tests.services.waiting import wait_until


@pytest.mark.parametrize("columns", ["80", "200"])
def test_a_failure_that_says_nothing_but_blanks_is_listed(
    store: Store, provd: Provd, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    part = ProducerBuilder("run", "p1").open()
    part.task("t", Status.ERROR, stderr="\n")
    part.write(store)

    done = provd("tasks")

    assert done.exit_code == 0
    assert "ERROR" in done.stdout
    assert "What failed" not in done.stdout


def test_following_goes_on_after_a_failure_that_says_nothing_but_blanks(
    store: Store, store_url: str, start_provd: StartProvd
) -> None:
    part = ProducerBuilder("run", "p1").open()
    part.task("before", Status.ERROR, stderr=" \n")
    part.task("after", Status.ERROR, stderr="ValueError: bad\nvalue 3\n")
    part.write(store)

    child = start_provd("tasks", "--follow", "--store", store_url)

    wait_until(lambda: "ValueError: bad value 3" in child.log.read_text(), 30)
    assert child.is_running


def test_a_narrow_list_says_in_a_line_or_two_how_each_task_ended(store: Store, provd: Provd) -> None:
    # Given messages of many lines and of one very long one, equal ones, and tasks that did not fail
    part = ProducerBuilder("run", "p1").open()
    part.task("t", Status.ERROR, stderr="RuntimeError: " + "x" * 20_000)
    part.task("t", Status.ERROR, stderr="RuntimeError: " + "漢字 " * 5_000)
    for _ in range(3):
        part.task(
            "t", Status.ERROR, stderr="ValueError: bad\nvalue 3", traceback="ValueError: bad\nvalue 3\n"
        )
    part.task("t", Status.ERROR, stderr="torn", generated={"rows": 7})
    part.task("t", Status.CANCELLED, stderr="KeyboardInterrupt")
    part.task("t", Status.CANCELLED, stderr="KeyboardInterrupt")
    part.task("t", Status.SKIPPED, stderr="it is there")
    part.task("t", Status.FINISHED, stderr="a warning")
    part.write(store)

    done = provd("tasks", "--sort", "task_id")

    # Then
    _, failed, cancelled, skipped = done.stdout.split("\nWhat ")
    lines = failed.splitlines()
    assert (lines[0], len(lines)) == ("failed", 2 + 2 * 2 + 2 + 1)
    assert lines[2] == "p1-00000001 RuntimeError:"
    assert lines[3].endswith("x…")
    assert lines[5].endswith("…")
    assert lines[6] == "p1-00000003 3 times ValueError: bad value 3"
    assert lines[7] == "p1-00000006 torn"
    assert lines[8] == "cut off here: --json has the whole message"
    assert cancelled.splitlines() == [
        "was cancelled",
        "task         message",
        "p1-00000007  2 times KeyboardInterrupt",
    ]
    assert skipped.splitlines() == ["was skipped", "task         message", "p1-00000009  it is there"]
    assert "a warning" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_a_wide_list_says_of_a_failed_task_how_it_failed_also_when_it_made_something(
    store: Store, provd: Provd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    part = ProducerBuilder("run", "p1").open()
    part.task("t", Status.ERROR, stderr="ValueError: bad\nvalue 3", generated={"rows": 7})
    part.task("t", Status.FINISHED, stderr="a warning", generated={"rows": 8})
    part.write(store)

    lines = provd("tasks", "--sort", "task_id").stdout.splitlines()

    assert lines[1].endswith("ValueError: bad value 3")
    assert lines[2].endswith("rows=8")


def test_the_page_of_a_run_is_short_whatever_failed_tasks_say(store: Store, provd: Provd) -> None:
    part = ProducerBuilder("run", "p1").open()
    text = "y" * 20_000
    for number in range(300):
        part.task("load", Status.ERROR, stderr=f"cannot read /data/part-{number:05}.h5 at offset {number}")
    part.task("load", Status.ERROR, stderr=f"ValueError: {text}", traceback=f"ValueError: {text}\n")
    part.task("load", Status.ERROR, stderr="SystemExit: 2")
    part.workflow(Status.ERROR, stderr="z" * 20_000).close(Status.ERROR).write(store)

    page = provd("runs", "show", "run").stdout
    (document,) = map(json.loads, provd("runs", "show", "run", "--json").stdout.splitlines())

    for line in (
        "300 times load: cannot read /data/part-00000.h5 at offset 0", "load: SystemExit: 2", "load: ValueError:",
    ):  # fmt: skip
        assert line in page
    assert len(page.splitlines()) < 50
    assert [(error["count"], error.get("exception")) for error in document["errors"]] == [
        (300, None), (1, "SystemExit"), (1, "ValueError"),
    ]  # fmt: skip
    assert document["other_errors"] == 0
    assert len(json.dumps(document["errors"])) < 30_000
