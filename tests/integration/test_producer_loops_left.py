"""How a loop was left: by its end, on purpose, by an exception, or unknown (G6)."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

import provd
from provd.producer.context import current_task
from provd.testing import captured
from tests.integration.iterations import both, ends, fail, iterations_of
from tests.services.waiting import wait_until
from tests.streams import Script, Streams


@pytest.fixture(autouse=True)
def nothing_stays_current() -> Iterator[None]:
    """However a loop was left, the task outside is the current one again."""
    yield
    assert current_task.get() is None


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
        assert "test_producer_loops_left.py:" in task["stderr"]


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
