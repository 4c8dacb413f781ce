"""What is read of a failure, from records as producers write them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ExceptionWithTraceback  # type: ignore[attr-defined]
from typing import Any, NoReturn

import pytest

from provd.common.record import Record
from provd.producer.outcome import outcome_of
from provd.query.failure import HEADLINE_MAX, Failure, read_failure

QUOTED = (
    "worker failed:\nTraceback (most recent call last):\n  File \"worker.py\", line 3, in work\nKeyError: 'q'\n\n"
    "During handling of the above exception, another exception occurred:\n\n"
    'Traceback (most recent call last):\n  File "worker.py", line 5, in work\nIndexError: z\n'
)


def record_of(call: Callable[[], Any]) -> Record:
    """The record of a task that `call` ended."""
    try:
        call()
    except BaseException as error:
        return outcome_of(error).fields()
    raise AssertionError("nothing was raised")


def throw(error: BaseException) -> NoReturn:
    """Raise it on a line that `here` knows."""
    raise error


def here() -> str:
    """Where `throw` raises."""
    return f"{__file__}:{throw.__code__.co_firstlineno + 2}"


def chained(error: Exception, cause: Exception) -> NoReturn:
    """Raise an error because of another."""
    try:
        raise cause
    except Exception as raised:
        throw_from(error, raised)


def throw_from(error: Exception, cause: Exception) -> NoReturn:
    """Raise an error with its cause."""
    raise error from cause


class Nowhere(Exception):
    """An error of this module."""


@pytest.mark.parametrize(
    ("error", "headline", "exception"),
    [
        (ValueError("bad"), "ValueError: bad", "ValueError"),
        (ValueError("bad\nvalue 3"), "ValueError: bad value 3", "ValueError"),
        (AssertionError("\nexpected: 1\ngot: 2"), "AssertionError: expected: 1 got: 2", "AssertionError"),
        (ValueError("KeyError: 1\nTypeError: 2"), "ValueError: KeyError: 1 TypeError: 2", "ValueError"),
        (ValueError(), "ValueError", "ValueError"),
        (KeyError("a b"), "KeyError: 'a b'", "KeyError"),
        (Nowhere("lost"), "Nowhere: lost", f"{__name__}.Nowhere"),
        (RuntimeError(QUOTED), f"RuntimeError: {' '.join(QUOTED.split())}", "RuntimeError"),
    ],
)
def test_the_headline_is_the_line_of_the_exception(error: Exception, headline: str, exception: str) -> None:
    failure = read_failure(record_of(lambda: throw(error)))

    assert failure == Failure(headline, exception, here())


@pytest.mark.parametrize(
    "cause", [KeyError("x"), ValueError("outer"), ValueError("x\ny"), RuntimeError(QUOTED)]
)
def test_of_a_chain_it_is_the_exception_that_came_out(cause: Exception) -> None:
    failure = read_failure(record_of(lambda: chained(ValueError("outer\nmore"), cause)))

    line = throw_from.__code__.co_firstlineno + 2
    assert failure == Failure("ValueError: outer more", "ValueError", f"{__file__}:{line}")


def test_of_an_error_while_handling_another_it_is_the_later_one() -> None:
    def call() -> None:
        try:
            throw(KeyError("first"))
        except KeyError:
            throw(TypeError("second"))

    assert read_failure(record_of(call)) == Failure("TypeError: second", "TypeError", here())


def test_an_error_that_another_process_handed_over_was_raised_there() -> None:
    """The innermost frame here is a line of the pool's."""

    def call() -> None:
        try:
            throw(ValueError("bad"))
        except ValueError as error:
            rebuild, arguments = ExceptionWithTraceback(error, error.__traceback__).__reduce__()
            came_over = rebuild(*arguments)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(throw_again, came_over).result()

    assert read_failure(record_of(call)) == Failure("ValueError: bad", "ValueError", here())


def throw_again(error: Exception) -> NoReturn:
    """Raise what came from elsewhere."""
    raise error


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.11 has notes")
def test_a_note_is_not_the_error() -> None:
    error = ValueError("bad")
    error.add_note("KeyError: a note")  # type: ignore[attr-defined, unused-ignore]

    failure = read_failure(record_of(lambda: throw(error)))

    assert failure == Failure("ValueError: bad", "ValueError", here())


def test_a_syntax_error_was_raised_where_the_text_is_wrong() -> None:
    failure = read_failure(record_of(lambda: compile("x = = 1", "<model>", "exec")))

    assert failure == Failure("SyntaxError: invalid syntax (<model>, line 1)", "SyntaxError", "<model>:1")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.11 has exception groups")
def test_an_exception_group_says_what_is_in_it() -> None:
    async def fail() -> None:
        throw(OSError("full\ndisk"))

    async def together() -> None:
        async with asyncio.TaskGroup() as tasks:  # type: ignore[attr-defined, unused-ignore]
            tasks.create_task(fail())

    failure = read_failure(record_of(lambda: asyncio.run(together())))

    assert failure == Failure(
        "ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception): OSError: full",
        "ExceptionGroup[OSError]",
        here(),
    )


def test_an_error_that_was_never_raised_has_a_type_and_no_place() -> None:
    failure = read_failure(outcome_of(ValueError("made\nby hand")).fields())

    assert failure == Failure("ValueError: made by hand", "ValueError")


@pytest.mark.parametrize("error", [ValueError("x" * 70_000), ValueError("KeyError: 1\n" * 10_000)])
def test_a_message_that_left_no_room_for_its_traceback_still_has_its_type(error: ValueError) -> None:
    failure = read_failure(record_of(lambda: throw(error)))

    assert failure is not None
    assert (failure.exception, len(failure.headline)) == ("ValueError", HEADLINE_MAX)
    assert failure.headline.startswith("ValueError: ")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("reading\nno such file\n\n", Failure("no such file")),
        ("SystemExit: usage:\n  two lines", Failure("SystemExit: usage: two lines", "SystemExit")),
        ("ValueError: bad\nvalue 3", Failure("ValueError: bad value 3", "ValueError")),
        ("a.py:3: UserWarning: old\nnode7 died", Failure("node7 died")),
        ("ended\nhdf.FileError: torn", Failure("hdf.FileError: torn", "hdf.FileError")),
        (f"log\n{QUOTED}srun: error: node7", Failure("IndexError: z", "IndexError", "worker.py:5")),
        ('Traceback (most recent call last):\n  File "a.py", line 2', Failure('File "a.py", line 2')),
    ],
)
def test_a_programs_own_text_tells_by_its_last_traceback_or_its_last_line(
    said: str, expected: Failure
) -> None:
    assert read_failure({"status": "ERROR", "stderr": said}) == expected


@pytest.mark.parametrize("said", [None, "", "\n", " \t\r\n "])
def test_a_record_that_does_not_say_has_no_failure(said: str | None) -> None:
    assert read_failure({"status": "ERROR", "stderr": said}) is None


def test_what_a_program_wrote_stands_back_behind_the_exception_that_was_recorded_with_it() -> None:
    record = record_of(lambda: throw(OSError("killed"))) | {"stderr": "step 1\nstep 2"}

    assert read_failure(record) == Failure("OSError: killed", "OSError", here())
