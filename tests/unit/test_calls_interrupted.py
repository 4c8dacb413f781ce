"""A signal handler may raise between any two steps of a call and of a cut: nothing is lost, nothing counts twice (G1, G2).

CPython runs handlers after calls. Here one raises after each call of the path in turn, by way of a profile function.
"""

from __future__ import annotations

import gc
import itertools
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any

import pytest

import provd
from provd.common import wire
from provd.common.record import Kind, Message
from provd.producer.capture import Frozen
from provd.producer.channel import Channel
from provd.producer.framing import CutFrame, Limits
from provd.producer.identity import read_identity
from provd.testing import captured

TASKS = 7

SHAPE = wire.Shape(Kind.TASK, (("activity_id", "f"),), ("x", "y"), ("x", "y"))


class Interrupted(Exception):
    """A time limit of the program's."""


def handler(*_: object) -> None:
    raise Interrupted


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    before = signal.signal(signal.SIGUSR1, handler)
    yield
    signal.signal(signal.SIGUSR1, before)


def interrupted_at(step: int, work: Callable[[], object]) -> bool:
    """Run it, the handler raising at one event; whether the event came.

    The collector of garbage rests meanwhile: it would close generators that the interruption before left behind, and
    what is raised there reaches nobody.
    """
    events = 0

    def profile(frame: FrameType, event: str, _: Any) -> None:
        nonlocal events
        if event in ("c_return", "call") and frame.f_code is not interrupted_at.__code__:
            events += 1
            if events == step:
                handler()

    gc.disable()
    sys.setprofile(profile)
    try:
        work()
    except Interrupted:
        pass
    finally:
        sys.setprofile(None)
        gc.enable()
    return events >= step


def numbered(number: int, value: Any) -> Any:
    return value


@pytest.mark.parametrize("light", [False, True])
@pytest.mark.parametrize("result", [1, None, {"a": 1, "b": "c"}, [1, 2]])
def test_a_call_that_is_interrupted_anywhere_is_recorded_once_at_most_and_the_others_once(
    result: Any, light: bool
) -> None:
    traced = provd.task(light=light)(numbered)
    step, came = 0, True

    with captured() as records, provd.workflow("w"):
        traced(-1, result)
        while came:
            step += 1
            traced(2 * step, result)
            came = interrupted_at(step, partial(traced, 2 * step + 1, result))

    numbers = [task["used"]["number"] for task in records.tasks()]
    assert len(numbers) == len(set(numbers))
    assert {2 * each for each in range(1, step + 1)} <= set(numbers)
    assert step > 10


@pytest.mark.parametrize("light", [False, True])
@pytest.mark.parametrize("values", [(1, "a"), wire.pack([1, "a"])])
def test_a_cut_that_is_interrupted_anywhere_loses_no_task_and_gives_none_two_ids(
    values: Frozen, light: bool
) -> None:
    step, came = 0, True
    while came:
        step += 1
        channel = Channel("w", None, "p-1", read_identity(), Limits(3, 1 << 20), itertools.count(1))
        for _ in range(TASKS):
            if light:
                channel.note(SHAPE, values, values, 1.0, 0.5)
            else:
                channel.end(channel.begin(SHAPE, values, None), values)
        frames: list[CutFrame] = []

        came = interrupted_at(step, partial(channel.cut, frames.append))
        channel.cut(frames.append)

        messages: dict[int, Message] = {}
        for frame in frames:
            for message in wire.decode(frame.header_field, frame.body_field).messages:
                assert messages.setdefault(message.seq, message) == message, step
        assert sorted(messages) == list(range(1, len(messages) + 1)), step
        tasks = {message.record_id for message in messages.values() if message.kind is Kind.TASK}
        assert len(tasks) == channel.tasks_ended == TASKS, step
    assert step > 10
