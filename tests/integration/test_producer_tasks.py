"""Every kind of function, and every option of the decorator."""

from __future__ import annotations

import argparse
import asyncio
import functools
import inspect
import pickle
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

import pytest

import provd
from provd.common.record import Record
from provd.testing import Captured, captured


@provd.task
def double(x: int, factor: int = 2) -> int:
    """Multiply."""
    return x * factor


@provd.task
def counted(limit: int) -> Generator[int, None, str]:
    """Yield numbers; the value is lost unless someone asks for it."""
    for number in range(limit):
        double(number)
        yield number
    return "done"


@provd.task
async def acounted(limit: int) -> AsyncIterator[int]:
    """Yield numbers, in turns with others."""
    for number in range(limit):
        await asyncio.sleep(0)
        double(number)
        yield number


@provd.task
async def fetch(url: str) -> bytes:
    """A coroutine."""
    await asyncio.sleep(0)
    return url.encode()


class Model:
    """Methods of every kind."""

    @provd.task
    def method(self, x: int) -> int:
        """An ordinary one."""
        return x

    @provd.task
    @classmethod
    def above_class(cls, x: int) -> str:
        """The decorator above."""
        return f"{cls.__name__}{x}"

    @classmethod
    @provd.task
    def below_class(cls, x: int) -> str:
        """The decorator below."""
        return f"{cls.__name__}{x}"

    @provd.task
    @staticmethod
    def above_static(x: int) -> int:
        """The decorator above."""
        return x


def only(capture: Captured, activity: str | None = None) -> Record:
    """The one task of an activity."""
    (task,) = capture.tasks(activity)
    return task


# --- kinds of functions ----------------------------------------------------------------------------------------


def test_a_generator_is_one_task_from_first_next_to_exhaustion_with_the_count_of_items() -> None:
    with captured() as capture, provd.workflow("w"):
        items = counted(3)
        assert list(items) == [0, 1, 2]

    task = only(capture, "counted")
    assert task["used"] == {"limit": 3}
    assert task["generated"] == {"items": 3, "result": "done"}
    assert {inner["parent_task_id"] for inner in capture.tasks("double")} == {task["task_id"]}


def test_a_generator_that_is_never_started_is_no_task() -> None:
    with captured() as capture, provd.workflow("w"):
        counted(3)

    assert capture.tasks() == []


def test_a_generator_that_is_closed_early_has_finished_with_what_it_yielded() -> None:
    with captured() as capture, provd.workflow("w"):
        items = counted(10)
        next(items)
        double(100)
        next(items)
        items.close()

    task = only(capture, "counted")
    assert (task["status"], task["generated"]) == ("FINISHED", {"items": 2})
    between = next(inner for inner in capture.tasks("double") if inner["used"]["x"] == 100)
    assert "parent_task_id" not in between


def test_sending_throwing_and_returning_work_as_without_the_decorator() -> None:
    def echo(start: str) -> Generator[str, str, str]:
        said = start
        while said != "stop":
            try:
                said = yield said.upper()
            except KeyError as error:
                said = f"caught {error}"
        return "bye"

    def drive(make: Any) -> list[Any]:
        generator = make("a")
        heard = [next(generator), generator.send("b"), generator.throw(KeyError("k"))]
        with pytest.raises(StopIteration) as stopped:
            generator.send("stop")
        return [*heard, stopped.value.value]

    with captured() as capture, provd.workflow("w"):
        assert drive(provd.task(echo)) == drive(echo)

    assert only(capture)["generated"] == {"items": 3, "result": "bye"}


def test_what_a_generator_raises_is_recorded_with_the_items_before_it() -> None:
    @provd.task
    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    with captured() as capture, provd.workflow("w"), pytest.raises(ValueError, match="no more"):
        list(failing())

    task = only(capture)
    assert (task["status"], task["stderr"], task["generated"]) == (
        "ERROR",
        "ValueError: no more",
        {"items": 1},
    )


def test_asynchronous_generators_are_tasks_too_and_interleave() -> None:
    async def consume(limit: int) -> list[int]:
        return [number async for number in acounted(limit)]

    async def both() -> list[list[int]]:
        return list(await asyncio.gather(consume(2), consume(3)))

    with captured() as capture, provd.workflow("w"):
        assert asyncio.run(both()) == [[0, 1], [0, 1, 2]]

    generators = {task["used"]["limit"]: task for task in capture.tasks("acounted")}
    assert {limit: task["generated"]["items"] for limit, task in generators.items()} == {2: 2, 3: 3}
    parents = [inner["parent_task_id"] for inner in capture.tasks("double")]
    assert sorted(parents) == sorted([generators[2]["task_id"]] * 2 + [generators[3]["task_id"]] * 3)


def test_a_cancelled_coroutine_is_cancelled_and_says_so() -> None:
    @provd.task
    async def wait() -> None:
        await asyncio.Event().wait()

    async def cancel() -> None:
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    with captured() as capture, provd.workflow("w"):
        asyncio.run(cancel())

    assert only(capture)["status"] == "CANCELLED"


def test_methods_are_recorded_without_the_object_they_belong_to() -> None:
    with captured() as capture, provd.workflow("w"):
        assert Model().method(1) == 1
        assert Model.above_class(2) == "Model2"
        assert Model.below_class(3) == "Model3"
        assert Model.above_static(4) == Model().above_static(4) == 4
        assert provd.task(Model().method)(5) == 5

    assert {(task["activity_id"], task["used"]["x"]) for task in capture.tasks()} == {
        ("method", 1), ("above_class", 2), ("below_class", 3), ("above_static", 4), ("method", 5),
    }  # fmt: skip
    assert all(task["used"].keys() == {"x"} for task in capture.tasks())


def test_every_way_of_passing_arguments_is_recorded_by_name() -> None:
    @provd.task
    def call(a: int, /, b: int, c: int = 3, *rest: int, d: int = 4, **more: int) -> None: ...

    @provd.task
    def plain(a: int, /, b: int = 2, *, c: int = 3) -> None: ...

    with captured() as capture, provd.workflow("w"):
        call(1, 2)
        call(1, b=2, d=5, e=6)
        call(1, 2, 7, 8, 9)
        plain(1, c=4)

    assert [task["used"] for task in capture.tasks("call")] == [
        {"a": 1, "b": 2, "c": 3, "d": 4},
        {"a": 1, "b": 2, "c": 3, "d": 5, "e": 6},
        {"a": 1, "b": 2, "c": 7, "rest": [8, 9], "d": 4},
    ]
    assert only(capture, "plain")["used"] == {"a": 1, "b": 2, "c": 4}


def test_a_wrong_call_is_refused_by_python_and_recorded_as_an_error() -> None:
    with captured() as capture, provd.workflow("w"):
        with pytest.raises(TypeError) as ours:
            double(1, 2, 3)  # type: ignore[call-arg]
    with pytest.raises(TypeError) as pythons:
        double.__wrapped__(1, 2, 3)  # type: ignore[attr-defined]

    assert str(ours.value) == str(pythons.value)
    assert only(capture)["status"] == "ERROR"


def test_callables_of_other_kinds_and_other_decorators_are_understood() -> None:
    def twice(fn: Any) -> Any:
        @functools.wraps(fn)
        def inner(*args: Any, **kwargs: Any) -> Any:
            fn(*args, **kwargs)
            return fn(*args, **kwargs)

        return inner

    @provd.task
    @twice
    def add(a: int, b: int) -> int:
        return a + b

    part = provd.task(functools.partial(lambda a, b: a - b, 10))
    with captured() as capture, provd.workflow("w"):
        assert add(1, b=2) == 3
        assert part(4) == 6
        assert provd.task(len)([1, 2]) == 2

    assert only(capture, "add")["used"] == {"a": 1, "b": 2}
    assert only(capture, "partial")["used"] == {"arg_0": 4}
    assert only(capture, "len")["generated"] == {"result": 2}


def test_a_decorated_function_looks_like_the_function() -> None:
    """Signatures, `inspect`, pickling and docstrings behave as without the decorator."""
    assert inspect.signature(double) == inspect.signature(double.__wrapped__)  # type: ignore[attr-defined]
    assert (double.__name__, double.__doc__) == ("double", "Multiply.")
    assert pickle.loads(pickle.dumps(double)) is double
    assert inspect.iscoroutinefunction(fetch)
    assert inspect.isgeneratorfunction(counted)
    assert inspect.isasyncgenfunction(acounted)
    assert inspect.isgenerator(counted(1))


# --- options ---------------------------------------------------------------------------------------------------


def test_results_are_named_by_a_name_names_a_function_or_themselves() -> None:
    with captured() as capture, provd.workflow("w"):
        provd.task(outputs="loss")(lambda: 0.5)()
        provd.task(outputs=("loss", "steps"))(lambda: (0.5, 3))()
        provd.task(outputs=lambda result: {"length": len(result)})(lambda: "four")()
        provd.task(lambda: {"loss": 0.5})()
        provd.task(lambda: 0.5)()
        provd.task(lambda: None)()
        provd.task(outputs=("loss", "steps"))(lambda: 0.5)()

    assert [task.get("generated") for task in capture.tasks()] == [
        {"loss": 0.5}, {"loss": 0.5, "steps": 3}, {"length": 4}, {"loss": 0.5}, {"result": 0.5}, None, {"result": 0.5},
    ]  # fmt: skip


def test_arguments_can_be_skipped_or_chosen_by_a_function() -> None:
    @provd.task(skip=["huge"])
    def train(lr: float, huge: list[int], epochs: int = 3) -> None: ...

    @provd.task(capture=lambda used: {"size": len(used["data"])})
    def load(data: bytes) -> None: ...

    with captured() as capture, provd.workflow("w"):
        train(0.1, [1, 2])
        train(0.2, huge=[3], epochs=4)
        load(b"1234")

    assert [task["used"] for task in capture.tasks("train")] == [
        {"lr": 0.1, "epochs": 3},
        {"lr": 0.2, "epochs": 4},
    ]
    assert only(capture, "load")["used"] == {"size": 4}


def test_a_failing_function_of_the_users_costs_its_own_record_only() -> None:
    def fail(_value: object) -> dict[str, int]:
        raise LookupError("no such")

    @provd.task(capture=fail, outputs=fail)
    def work(x: int) -> int:
        return x

    with captured() as capture, provd.workflow("w"):
        assert work(5) == 5

    assert (only(capture)["used"], only(capture)["generated"]) == ({"x": 5}, {"result": 5})


def test_a_light_task_records_the_same_facts_but_for_its_parent() -> None:
    @provd.task(light=True, outputs="half", tags=["t"])
    def halve(x: int, by: int = 2) -> float:
        return double(x) / by / 2

    @provd.task
    def above() -> None:
        halve(4)
        with pytest.raises(ZeroDivisionError):
            halve(4, by=0)

    with captured() as capture, provd.workflow("w"):
        above()

    good, bad = capture.tasks("halve")
    assert (good["used"], good["generated"], good["status"], good["tags"]) == (
        {"x": 4, "by": 2}, {"half": 2.0}, "FINISHED", ["t"],
    )  # fmt: skip
    assert good["ended_at"] >= good["started_at"]
    assert good["duration"] > 0
    assert (bad["status"], bad["stderr"]) == ("ERROR", "ZeroDivisionError: division by zero")
    assert "ZeroDivisionError" in bad["traceback"]
    assert "parent_task_id" not in good
    outer = only(capture, "above")["task_id"]
    assert {task["parent_task_id"] for task in capture.tasks("double")} == {outer}
    assert len({task["task_id"] for task in capture.tasks()}) == 5


def test_arguments_whose_names_clash_are_kept_apart() -> None:
    @provd.task
    def call(a: int, /, *args: int, **more: int) -> None: ...

    with captured() as capture, provd.workflow("w"):
        call(1, 2, a=3, args=4, b=5)

    assert only(capture)["used"] == {"a": 1, "args": [2], "more": {"a": 3, "args": 4}, "b": 5}


def test_a_namespace_of_arguments_is_flattened() -> None:
    @provd.task
    def run(arguments: argparse.Namespace, seed: int) -> None: ...

    with captured() as capture, provd.workflow("w"):
        run(argparse.Namespace(lr=0.1, epochs=3), 7)

    assert only(capture)["used"] == {"lr": 0.1, "epochs": 3, "seed": 7}


def test_one_call_can_be_recorded_elsewhere() -> None:
    @provd.task
    def takes_it(workflow_id: str) -> str:
        return workflow_id

    with captured() as capture, provd.workflow("w", campaign_id="here") as workflow:
        double(1)
        double(2, campaign_id="there")  # type: ignore[call-arg]
        double(3, workflow_id="other.1", campaign_id="there")  # type: ignore[call-arg]
        double(4, workflow_id="not an id")  # type: ignore[call-arg]
        assert takes_it(workflow_id="mine") == "mine"

    places = {
        task["used"].get("x"): (task["workflow_id"], task.get("campaign_id"))
        for task in capture.tasks("double")
    }
    own = workflow.workflow_id
    assert places == {1: (own, "here"), 2: (own, "there"), 3: ("other.1", "there"), 4: (own, "here")}
    assert only(capture, "takes_it")["workflow_id"] == own


def test_labels_of_every_record() -> None:
    @provd.task(tags=["a", "b"], metadata={"owner": {"name": "ada"}}, subtype="tool", agent_id="agent-1")
    def tool() -> None: ...

    with captured() as capture, provd.workflow("w"):
        tool()

    task = only(capture)
    assert (task["tags"], task["subtype"], task["agent_id"]) == (["a", "b"], "tool", "agent-1")
    assert task["custom_metadata"] == {"owner": {"name": "ada"}}
