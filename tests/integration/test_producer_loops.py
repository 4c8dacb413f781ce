"""Loops: a task per iteration, what it records, and what is around it (G6)."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextvars import copy_context

import pytest

import provd
from provd.producer.context import current_task
from provd.testing import captured
from tests.integration.iterations import both, ends, iterations_of
from tests.services.waiting import wait_until
from tests.streams import Script, Streams


@pytest.fixture(autouse=True)
def nothing_stays_current() -> Iterator[None]:
    """However a loop was left, the task outside is the current one again."""
    yield
    assert current_task.get() is None


# --- what is recorded ---


@both
def test_every_iteration_is_a_task_with_its_item_and_what_was_recorded(light: bool) -> None:
    # Given a loop whose body records values, in one call or several
    with captured() as capture, provd.workflow("w"):
        loop = provd.loop(["a", "b", "c"], name="epoch", item="letter", light=light)

        # When it runs to its end
        loop.record(before="nothing")
        seen = []
        for letter in loop:
            seen.append(letter)
            if letter != "b":
                loop.record(loss=0.5, state=[1])
                loop.record(loss=0.25, more=None)
        loop.record(after="nothing")

    # Then each iteration says what it was and made
    assert seen == ["a", "b", "c"]
    first, second, third = capture.tasks("epoch")
    assert [task["used"] for task in (first, second, third)] == [
        {"i": 0, "letter": "a"},
        {"i": 1, "letter": "b"},
        {"i": 2, "letter": "c"},
    ]
    assert first["generated"] == {"loss": 0.25, "state": [1], "more": None}
    assert "generated" not in second
    assert {task["subtype"] for task in (first, second, third)} == {"iteration"}
    assert {task["status"] for task in (first, second, third)} == {"FINISHED"}
    assert len({task["group_id"] for task in (first, second, third)}) == 1
    assert len({task["task_id"] for task in (first, second, third)}) == 3
    assert first["ended_at"] - first["started_at"] == round(first["duration"] * 1000)
    assert first["started_at"] <= second["started_at"] <= third["started_at"]


@both
def test_a_recorded_value_is_what_it_was_when_it_was_recorded(light: bool) -> None:
    def body() -> None:
        history: list[int] = []
        loop = provd.loop(2, light=light)
        for index in loop:
            history.append(index)
            loop.record(history=history)
            history.append(-1)

    first, second = iterations_of(body)
    assert first["generated"] == {"history": [0]}
    assert second["generated"] == {"history": [0, -1, 1]}


@both
def test_iterations_have_the_current_task_as_parent_or_the_one_they_are_given(light: bool) -> None:
    with captured() as capture, provd.workflow("w"), provd.Task("outer") as outer:
        list(provd.loop(1, name="inside", light=light))
        list(provd.loop(1, name="by task", parent=outer, light=light))
        list(provd.loop(1, name="by id", parent="elsewhere-00000001", light=light))

    (parent,) = capture.tasks("outer")
    (inside,), (by_task,), (by_id,) = (capture.tasks(name) for name in ("inside", "by task", "by id"))
    assert inside["parent_task_id"] == parent["task_id"]
    assert by_task["parent_task_id"] == parent["task_id"]
    assert by_id["parent_task_id"] == "elsewhere-00000001"


def test_loops_nest_and_tasks_in_the_body_have_the_iteration_as_parent() -> None:
    # Given a task in a loop in a loop, and one behind it
    @provd.task
    def step(n: int) -> int:
        return n

    with captured() as capture, provd.workflow("w"):
        for trial in provd.loop(2, name="trial"):
            for epoch in provd.loop(2, name="epoch"):
                step(10 * trial + epoch)
        step(99)

    # Then parents lead from the task to the outer iteration, and no further
    trials = {task["task_id"]: task for task in capture.tasks("trial")}
    epochs = {task["task_id"]: task for task in capture.tasks("epoch")}
    assert len(trials) == 2
    assert len(epochs) == 4
    assert len({task["group_id"] for task in epochs.values()}) == 2
    *inner, last = sorted(capture.tasks("step"), key=lambda task: task["used"]["n"])
    for task in inner:
        epoch_task = epochs[task["parent_task_id"]]
        trial_task = trials[epoch_task["parent_task_id"]]
        assert 10 * trial_task["used"]["item"] + epoch_task["used"]["item"] == task["used"]["n"]
    assert "parent_task_id" not in last


def test_what_makes_the_next_item_is_not_part_of_an_iteration() -> None:
    @provd.task
    def read(n: int) -> int:
        return n

    with captured() as capture, provd.workflow("w"):
        for _ in provd.loop(read(n) for n in range(3)):
            pass

    assert len(capture.tasks("read")) == 3
    assert all("parent_task_id" not in task for task in capture.tasks("read"))


@both
def test_an_endless_iterator_is_never_gathered_and_each_iteration_is_said_as_it_ends(
    light: bool, script: Script, streams: Streams
) -> None:
    """A killed process leaves every iteration that had ended a flush before."""
    ended = script.run(f"""
        import itertools, os
        import provd

        with provd.workflow("w"):
            for n in provd.loop(itertools.count(), light={light}):
                if n == 1000:
                    assert provd.flush(30)
                    os._exit(9)
    """)

    assert ended.returncode == 9
    assert [(n, "FINISHED") for n in range(1000)] == ends(streams.tasks("loop"))


@both
def test_a_slow_iteration_is_said_while_the_loop_goes_on(
    light: bool, script: Script, streams: Streams
) -> None:
    process = script.start(f"""
        import provd

        with provd.workflow("w"):
            for line in provd.loop(iter(input, "end"), light={light}):
                pass
    """)
    assert process.stdin is not None
    try:
        for count in (1, 2, 3):
            process.stdin.write("next\n")
            process.stdin.flush()
            wait_until(lambda count=count: len(streams.tasks("loop")) == count, timeout=30)  # type: ignore[misc]
    finally:
        process.communicate("end\n", timeout=30)


def test_the_length_is_known_where_the_iterable_knows_it_or_it_is_given() -> None:
    assert len(provd.loop(5)) == 5
    assert len(provd.loop([1, 2])) == 2
    assert len(provd.loop(iter([1, 2]), length=2)) == 2
    assert bool(provd.loop(iter([])))
    with pytest.raises(TypeError):
        len(provd.loop(iter([1, 2])))
    with captured(), provd.workflow("w"):
        assert list(provd.loop(iter([1, 2]))) == [1, 2]


@both
def test_no_item_is_kept_by_the_loop(light: bool) -> None:
    """A body that lets go of a large batch has its memory back at once, as with a bare `for`."""
    import weakref

    class Batch:
        pass

    with captured(), provd.workflow("w"):
        for batch in provd.loop((Batch() for _ in range(2)), light=light):
            watch = weakref.ref(batch)
            del batch
            assert watch() is None


# --- around it ---


def test_without_a_workflow_the_iterator_is_the_iterables_own() -> None:
    items = [1, 2]
    loop = provd.loop(items)

    assert type(iter(loop)) is type(iter(items))
    for _ in loop:
        loop.record(loss=1)
    with loop as entered:
        assert list(entered) == items


def test_the_loop_may_be_run_again_and_inside_itself() -> None:
    def body() -> None:
        loop = provd.loop(2)
        for outer in loop:
            for inner in loop:
                loop.record(inner=inner)
            loop.record(outer=outer)

    tasks = iterations_of(body)
    assert len({task["group_id"] for task in tasks}) == 3
    generated = [task["generated"] for task in tasks]
    assert [one for one in generated if "outer" in one] == [{"outer": 0}, {"outer": 1}]


def test_an_iterator_may_be_ended_by_another_thread() -> None:
    def body() -> None:
        iterator = iter(provd.loop(1))
        next(iterator)
        thread = threading.Thread(target=list, args=(iterator,))
        thread.start()
        thread.join()

    # In a context of its own: what began here is current here until something else is
    (task,) = copy_context().run(iterations_of, body)
    assert task["status"] == "FINISHED"


@both
def test_after_a_fork_the_open_iteration_is_the_parents(
    light: bool, script: Script, streams: Streams
) -> None:
    ended = script.run(f"""
        import os
        import provd

        with provd.workflow("w"):
            for n in provd.loop(4, light={light}):
                if n == 1:
                    child = os.fork()
                    if child == 0:
                        continue
            if child == 0:
                raise SystemExit(0)
            os.waitpid(child, 0)
    """)

    assert ended.stderr == ""
    by_producer: dict[str, list[int]] = {}
    for task in streams.tasks("loop"):
        by_producer.setdefault(task["producer_id"], []).append(task["used"]["i"])
    assert sorted(by_producer.values()) == [[0, 1, 2, 3], [2, 3]]


@both
def test_an_uncaught_exception_without_a_block_around_is_known_at_the_end_of_the_process(
    light: bool, script: Script, streams: Streams
) -> None:
    ended = script.run(f"""
        import provd

        provd.workflow("w").start()
        for n in provd.loop(3, light={light}):
            raise ValueError("no such model")
    """)

    assert ended.returncode == 1
    assert "provd" not in ended.stderr.replace("provd.loop", "")
    (task,) = streams.tasks("loop")
    assert (task["status"], task["stderr"]) == ("ERROR", "ValueError: no such model")


@both
def test_a_process_that_ends_in_the_middle_of_an_iteration_says_so(
    light: bool, script: Script, streams: Streams
) -> None:
    ended = script.run(f"""
        import provd

        provd.workflow("w").start()
        kept = iter(provd.loop(3, light={light}))
        next(kept), next(kept)
    """)

    assert (ended.returncode, ended.stderr) == (0, "")
    first, second = sorted(streams.tasks("loop"), key=lambda task: task["used"]["i"])
    assert first["status"] == "FINISHED"
    assert (second["status"], second["stderr"]) == (
        "CANCELLED",
        "the process ended in the middle of this iteration",
    )


@both
def test_a_long_loop_waits_in_bounded_memory(light: bool, script: Script, streams: Streams) -> None:
    """G5: what waits is no function of the number of iterations."""
    ended = script.run(
        f"""
        import provd

        with provd.workflow("w") as workflow:
            most = 0
            for n in provd.loop(150_000, light={light}):
                if not n % 1000:
                    most = max(most, workflow.channel.waiting_bytes)
            print(most)
        """,
        env={"PROVD_BUFFER_BYTES": "1048576"},
    )

    # The high-water mark is an eighth of the buffer; a cut in the sender's thread may let a little more come.
    assert int(ended.stdout) < 1048576 / 2


def test_the_instruction_that_left_is_read_on_this_python() -> None:
    """Where CPython changes its instructions, this is the test that says so."""
    from opcode import opmap

    assert sys.implementation.name == "cpython"
    assert {"GET_ITER", "FOR_ITER", "RAISE_VARARGS", "RERAISE", "YIELD_VALUE"} <= set(opmap)
