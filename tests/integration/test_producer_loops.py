"""Loops: a task per iteration, and how each one ended (G6)."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextvars import copy_context
from typing import Any

import pytest

import provd
from provd.common.record import Record
from provd.producer.context import current_task
from provd.testing import captured
from tests.services.waiting import wait_until
from tests.streams import Script, Streams

both = pytest.mark.parametrize("light", [False, True], ids=["plain", "light"])


def ends(tasks: list[Record]) -> list[tuple[int, str]]:
    """The iterations in order, and how each ended."""
    return sorted((task["used"]["i"], task["status"]) for task in tasks)


def iterations_of(body: Callable[[], Any]) -> list[Record]:
    """The iterations that a function leaves behind, in order; what it raises is caught outside of its workflow."""
    with captured() as capture:
        try:
            with provd.workflow("w"):
                body()
        except (ValueError, KeyError, SystemExit, KeyboardInterrupt, asyncio.CancelledError):
            pass
    return sorted(capture.tasks("loop"), key=lambda task: task["used"]["i"])


def fail() -> None:
    raise ValueError("no such model")


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
            wait_until(lambda count=count: len(streams.tasks("loop")) == count, timeout=5)  # type: ignore[misc]
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


# --- how it was left ---


def break_() -> None:
    for item in provd.loop(5):
        if item == 1:
            break


def return_item() -> Any:
    for item in provd.loop(5):
        if item == 1:
            return item
    return None


def return_constant() -> int:
    for item in provd.loop(5):
        if item == 1:
            return 7
    return 8


def break_from_try() -> None:
    for item in provd.loop(5):
        try:
            if item == 1:
                break
        finally:
            gc.collect()


def break_from_with() -> None:
    for item in provd.loop(5):
        with provd.Task("inner"):
            if item == 1:
                break


def break_from_enumerate() -> None:
    for index, _ in enumerate(provd.loop(5)):
        if index == 1:
            break


def close_generator_by_break() -> None:
    def items() -> Iterator[int]:
        for item in provd.loop(5):
            double = 2 * item
            yield double // 2

    for item in items():
        if item == 1:
            break


def swallowed_inside() -> None:
    for item in provd.loop(2):
        try:
            if item == 1:
                fail()
        except ValueError:
            pass


@pytest.mark.parametrize(
    "body",
    [
        break_,
        return_item,
        return_constant,
        break_from_try,
        break_from_with,
        break_from_enumerate,
        close_generator_by_break,
        swallowed_inside,
    ],
)
def test_a_loop_left_on_purpose_ends_its_iteration_as_finished(body: Callable[[], Any]) -> None:
    assert ends(iterations_of(body)) == [(0, "FINISHED"), (1, "FINISHED")]


@both
def test_a_light_loop_says_the_same_of_break_and_exception(light: bool) -> None:
    def leave() -> None:
        loop = provd.loop(5, light=light)
        for item in loop:
            loop.record(n=item)
            if item == 1:
                break

    def raise_() -> None:
        loop = provd.loop(5, light=light)
        for item in loop:
            loop.record(n=item)
            if item == 1:
                fail()

    assert [task["generated"] for task in iterations_of(leave)] == [{"n": 0}, {"n": 1}]
    assert ends(iterations_of(leave)) == [(0, "FINISHED"), (1, "FINISHED")]
    _, last = iterations_of(raise_)
    assert (last["status"], last["stderr"]) == ("ERROR", "ValueError: no such model")
    assert last["generated"] == {"n": 1}


def call() -> None:
    for item in provd.loop(5):
        if item == 1:
            fail()


def operator() -> None:
    for item in provd.loop(5):
        try:
            assert 1 / (1 - item)
        except ZeroDivisionError as error:
            raise ValueError("no such model") from error


def from_finally() -> None:
    for item in provd.loop(5):
        try:
            if item == 1:
                fail()
        finally:
            gc.collect()


def from_with() -> None:
    for item in provd.loop(5):
        with provd.Task("inner"):
            if item == 1:
                raise ValueError("no such model")


def through_a_function() -> None:
    try:
        call()
    except KeyError:
        pass


def caught_in_with() -> None:
    try:
        with provd.loop(5) as loop:
            for item in loop:
                if item == 1:
                    fail()
    except ValueError:
        pass


def caught_around_a_task() -> None:
    try:
        provd.task(call)()
    except ValueError:
        pass


def in_enumerate() -> None:
    for index, _ in enumerate(provd.loop(5)):
        if index == 1:
            fail()


def in_a_coroutine() -> None:
    async def work() -> None:
        for item in provd.loop(5):
            await asyncio.sleep(0)
            if item == 1:
                await broken()

    async def broken() -> None:
        await asyncio.sleep(0)
        fail()

    asyncio.run(work())


def thrown_into_a_generator() -> None:
    def items() -> Generator[int, None, None]:
        for item in provd.loop(5):
            if item == 1:
                yield item

    generator = items()
    next(generator)
    generator.throw(ValueError("no such model"))


def in_a_cleanup_that_loops() -> None:
    try:
        call()
    finally:
        list(provd.loop(2, name="cleanup"))


@pytest.mark.parametrize(
    "body",
    [
        call,
        operator,
        from_finally,
        from_with,
        through_a_function,
        caught_in_with,
        caught_around_a_task,
        in_enumerate,
        in_a_coroutine,
        thrown_into_a_generator,
        in_a_cleanup_that_loops,
    ],
)
def test_an_exception_in_the_body_is_in_the_record_with_its_traceback(body: Callable[[], Any]) -> None:
    first, second = iterations_of(body)

    assert first["status"] == "FINISHED"
    assert (second["status"], second["stderr"]) == ("ERROR", "ValueError: no such model")
    assert 'ValueError("no such model")' in second["traceback"]


@pytest.mark.parametrize(
    ("error", "status", "stderr"),
    [
        (SystemExit(0), "FINISHED", None),
        (SystemExit(3), "ERROR", "SystemExit: 3"),
        (KeyboardInterrupt(), "CANCELLED", "KeyboardInterrupt"),
        (asyncio.CancelledError(), "CANCELLED", "CancelledError"),
    ],
)
def test_the_ends_that_are_no_errors_are_told_apart(
    error: BaseException, status: str, stderr: str | None
) -> None:
    def body() -> None:
        for _ in provd.loop(5):
            raise error

    (task,) = iterations_of(body)
    assert (task["status"], task.get("stderr")) == (status, stderr)


def test_an_iteration_in_which_the_coroutine_was_cancelled_says_so() -> None:
    @provd.task
    async def work(reached: asyncio.Event) -> None:
        for item in provd.loop(5):
            if item == 1:
                reached.set()
                await asyncio.sleep(60)

    async def cancel() -> None:
        reached = asyncio.Event()
        running = asyncio.ensure_future(work(reached))
        await reached.wait()
        running.cancel()
        await asyncio.wait([running])

    assert ends(iterations_of(lambda: asyncio.run(cancel()))) == [(0, "FINISHED"), (1, "CANCELLED")]


def test_all_the_loops_that_one_exception_leaves_say_so() -> None:
    with captured() as capture, pytest.raises(ValueError), provd.workflow("w"):
        for _ in provd.loop(3, name="outer"):
            for _ in provd.loop(3, name="inner"):
                fail()

    assert [(task["status"], task["stderr"]) for task in capture.tasks()] == [
        ("ERROR", "ValueError: no such model")
    ] * 2


def test_an_error_of_the_iterable_is_no_error_of_an_iteration() -> None:
    def items() -> Iterator[int]:
        yield 0
        fail()

    with captured() as capture, pytest.raises(ValueError), provd.workflow("w"):
        for _ in provd.loop(items()):
            pass

    assert ends(capture.tasks("loop")) == [(0, "FINISHED")]


# --- what cannot be known ---


def test_an_exception_handled_beside_the_loop_is_an_error_that_names_the_place() -> None:
    """We see that it was one, and not which."""

    def body() -> None:
        for _ in range(2):
            try:
                for item in provd.loop(5):
                    if item == 1:
                        fail()
            except ValueError:
                pass

    tasks = iterations_of(body)
    assert ends(tasks) == [(0, "FINISHED")] * 2 + [(1, "ERROR")] * 2
    for task in tasks[2:]:
        assert task["stderr"].startswith("left by an exception that was handled before")
        assert "test_producer_loops.py:" in task["stderr"]


@pytest.mark.parametrize("fails", [False, True])
def test_an_iterator_kept_by_hand_is_never_claimed_to_have_finished(fails: bool) -> None:
    def body() -> None:
        iterator = iter(provd.loop(5))
        next(iterator)
        next(iterator)
        if fails:
            fail()

    first, second = iterations_of(body)
    assert (first["status"], second["status"]) == ("FINISHED", "CANCELLED")
    assert "not known" in second["stderr"]


def test_a_call_that_drops_its_iterator_is_not_taken_for_an_exception() -> None:
    (task,) = iterations_of(lambda: next(iter(provd.loop(5))))

    assert task["status"] == "CANCELLED"


def test_a_traceback_of_another_turn_of_the_same_function_is_not_taken_for_this_one() -> None:
    def turn(message: str, *, handled: bool) -> None:
        try:
            for _ in provd.loop(1):
                raise ValueError(message)
        except ValueError:
            if not handled:
                raise

    def body() -> None:
        turn("first", handled=True)
        turn("second", handled=False)

    first, second = iterations_of(body)
    messages = sorted([first["stderr"], second["stderr"]])
    assert messages[0] == "ValueError: second"
    assert messages[1].startswith("left by an exception")


def test_what_is_not_known_is_said_within_seconds_while_the_program_goes_on(
    script: Script, streams: Streams
) -> None:
    process = script.start("""
        import provd

        def work():
            try:
                for n in provd.loop(3):
                    raise ValueError(n)
            except ValueError:
                pass

        with provd.workflow("w"):
            work()
            input()
    """)
    try:
        wait_until(lambda: ends(streams.tasks("loop")) == [(0, "ERROR")])
    finally:
        process.communicate("\n", timeout=30)


def test_a_flush_leaves_nothing_of_its_thread_behind(script: Script, streams: Streams) -> None:
    script.run("""
        import os
        import provd

        with provd.workflow("w"):
            try:
                for n in provd.loop(3):
                    raise ValueError(n)
            except ValueError:
                pass
            provd.flush(30)
            os._exit(0)
    """)

    assert ends(streams.tasks("loop")) == [(0, "ERROR")]


@both
def test_what_is_known_of_an_end_stays_so_under_a_tracer(light: bool) -> None:
    """Debuggers and coverage tools change the instructions of running code."""

    def traced(frame: Any, event: str, argument: Any) -> Any:
        return traced

    def leave() -> None:
        for item in provd.loop(5, light=light):
            if item == 1:
                break

    def raise_() -> None:
        for item in provd.loop(5, light=light):
            if item == 1:
                fail()

    before = sys.gettrace()
    sys.settrace(traced)
    try:
        left, raised = iterations_of(leave), iterations_of(raise_)
    finally:
        sys.settrace(before)

    assert ends(left) == [(0, "FINISHED"), (1, "FINISHED")]
    assert (raised[1]["status"], raised[1]["stderr"]) == ("ERROR", "ValueError: no such model")


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
