"""The short way of a plain call records what the long way does: the first call of a function always takes the long one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import provd
from provd.common.settings import Settings
from provd.common.spool import spool_files
from provd.producer.process import replaced_producer
from provd.testing import captured


def step(rate: float, epochs: int = 3, optimizer: str = "adam") -> dict[str, Any]:
    return {"loss": rate, "steps": epochs, "by": optimizer}


def login(user: str, password: str) -> dict[str, Any]:
    return {"user": user, "token": password}


def back(value: Any) -> Any:
    return value


def nothing() -> None:
    pass


def count(items: list[Any]) -> int:
    return len(items)


class Text(str):
    """Text of another type."""

    __slots__ = ()


CALLS: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = [
    (step, (0.1, 2, "sgd"), {}),
    (step, (0.1,), {}),
    (step, (0.1,), {"optimizer": "sgd"}),
    (step, (), {"rate": 0.1, "epochs": 2, "optimizer": "sgd"}),
    (step, (), {"optimizer": "sgd", "epochs": 2, "rate": 0.1}),
    (step, (True, None, "redis://u:secret@host/0"), {}),
    (step, (0.1, 1 << 80, "x" * 300), {}),
    (step, ([1, 2], {"a": 1}, "sgd"), {}),
    (login, ("ada", "hunter2"), {}),
    (nothing, (), {}),
    *[
        (back, (value,), {})
        for value in (
            1,
            0.5,
            None,
            True,
            "text",
            "https://u:secret@host/",
            "y" * 300,
            (1, 2),
            ("https://u:secret@host/", 2),
            (1, [2]),
            (1, 2, 3),
            [1, "a"],
            {},
            {"a": 1, "b": "x"},
            {"a": [1]},
            {1: "a"},
            {Text("a"): 1},
            {"password": "hunter2", "n": 1},
            {"url": "https://u:secret@host/"},
        )
    ],
]


@pytest.mark.parametrize("light", [False, True])
@pytest.mark.parametrize("outputs", [None, "only", ("one", "two")])
def test_every_call_of_a_function_is_recorded_as_its_first_one_is(
    outputs: str | tuple[str, ...] | None, light: bool
) -> None:
    with captured() as records, provd.workflow("w"):
        for function, args, kwargs in CALLS:
            traced = provd.task(outputs=outputs, light=light)(function)
            for _ in range(3):
                traced(*args, **kwargs)

    said = [
        {name: task.get(name) for name in ("activity_id", "used", "generated", "status")}
        for task in records.tasks()
    ]
    assert len(said) == 3 * len(CALLS)
    assert said[1::3] == said[::3]
    assert said[2::3] == said[::3]
    assert "secret" not in str(said)
    assert "hunter2" not in str(said)


def test_arguments_that_alternate_between_plain_and_other_are_each_recorded_as_they_were() -> None:
    traced = provd.task(back)
    values: list[Any] = [
        1,
        [1],
        "a",
        {"a": [2]},
        2.5,
        {"a": 2},
        {"a": "b"},
        {"b": 1},
        {"a": 1, "b": 2},
        (3,),
        None,
    ]

    with captured() as records, provd.workflow("w"):
        for value in values * 3:
            traced(value)

    assert [task["used"]["value"] for task in records.tasks()] == [
        list(value) if isinstance(value, tuple) else value for value in values * 3
    ]
    assert [task.get("generated") for task in records.tasks()] == [
        value if isinstance(value, dict) else None if value is None else {"result": task["used"]["value"]}
        for value, task in zip(values * 3, records.tasks())
    ]


def test_a_plain_call_nested_in_another_has_it_as_its_parent_every_time() -> None:
    inner = provd.task(back)

    @provd.task
    def outer(number: int) -> int:
        return int(inner(number))

    with captured() as records, provd.workflow("w"):
        for number in range(3):
            outer(number)

    of = {task["task_id"]: task for task in records.tasks()}
    pairs = [task for task in records.tasks() if task["activity_id"] == "back"]
    assert len(pairs) == 3
    for task in pairs:
        assert of[task["parent_task_id"]]["used"]["number"] == task["used"]["value"]


def test_a_call_says_where_it_is_recorded_also_outside_of_a_workflow() -> None:
    traced: Callable[..., Any] = provd.task(back)

    with captured() as records:
        for _ in range(3):
            assert traced(1, workflow_id="elsewhere") == 1

    assert [task["workflow_id"] for task in records.tasks()] == ["elsewhere"] * 3


def test_a_call_without_arguments_says_where_it_is_recorded_every_time() -> None:
    traced: Callable[..., Any] = provd.task(nothing)

    with captured() as records, provd.workflow("w", workflow_id="here"):
        for _ in range(3):
            traced()
            traced(workflow_id="elsewhere")

    assert sorted(task["workflow_id"] for task in records.tasks()) == ["elsewhere"] * 3 + ["here"] * 3


@pytest.mark.parametrize("light", [False, True])
def test_a_call_that_python_refuses_is_recorded_with_what_it_was_given(light: bool) -> None:
    traced: Callable[..., Any] = provd.task(light=light)(nothing)

    with captured() as records, provd.workflow("w"):
        for _ in range(3):
            traced()
            with pytest.raises(TypeError, match=r"nothing\(\) got an unexpected keyword argument 'rate'"):
                traced(rate=0.1)

    refused = [task for task in records.tasks() if task["status"] == "ERROR"]
    assert [task["used"] for task in refused] == [{"rate": 0.1}] * 3


@pytest.mark.parametrize("light", [False, True])
def test_results_are_masked_by_the_rules_that_are_in_force_when_they_are_recorded(
    light: bool, tmp_path: Path
) -> None:
    traced = provd.task(light=light)(lambda pin: {"patient": pin, "n": 1})

    def said(folder: Path, secret_names: str) -> str:
        settings = Settings(broker_url=f"file://{folder}", spool_free_floor=0.0, secret_names=secret_names)
        with replaced_producer(settings), provd.workflow("w"):
            for _ in range(3):
                traced("ada-lovelace-1815")
        return "".join(path.read_text() for path in spool_files([folder]))

    assert "ada-lovelace-1815" in said(tmp_path / "one", "")
    assert "ada-lovelace-1815" not in said(tmp_path / "two", "pin, patient")
    assert "ada-lovelace-1815" in said(tmp_path / "three", "")


@pytest.mark.parametrize(("durability", "light"), [("memory", False), ("disk", False), ("disk", True)])
def test_large_arguments_of_calls_with_small_results_stay_within_the_buffer(
    durability: str, light: bool, tmp_path: Path
) -> None:
    traced = provd.task(light=light)(count)
    settings = Settings(
        broker_url=f"file://{tmp_path}",
        spool_free_floor=0.0,
        durability=durability,
        flush_interval_s=60.0,
        buffer_bytes=1 << 20,
    )
    blocks = [b"x" * 60_000] * 4

    with replaced_producer(settings), provd.workflow("w") as workflow:
        assert workflow.channel is not None
        traced([])
        waiting = []
        for _ in range(40):
            assert traced(blocks) == 4
            waiting.append(workflow.channel.waiting_bytes)

    assert max(waiting) < 1 << 20


def test_a_light_task_that_ends_when_its_workflow_was_let_go_of_is_kept() -> None:
    traced = provd.task(light=True)(back)

    with captured() as records:
        with provd.workflow("w") as workflow:
            traced(1)
            provd.flush()
            traced(2)
            assert workflow.channel is not None
            workflow.channel.rests = True  # the sender let go of it between two threads' words
            traced(3)
            assert not workflow.channel.rests

    assert [task["used"]["value"] for task in records.tasks()] == [1, 2, 3]


def test_these_calls_go_the_short_way() -> None:
    with captured(), provd.workflow("w") as workflow:
        assert workflow.channel is not None
        assert workflow.channel.is_quick
