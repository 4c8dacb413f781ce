"""How a `for` statement over an iterator of ours was left.

An iterator is told of nothing but its exhaustion. What can be known of every other end, on CPython:

- The statement holds the only reference to its iterator, so leaving drops it at once, while the statement's frame
  stands at the instruction that left. `break` and `return` pop the iterator and do nothing else; at any other
  instruction the statement was left by an exception.
- Which exception it was cannot be seen at that moment. The iteration waits until the exception reaches a block of
  ours (a task, a workflow, the loop's own `with`, the end of the process), which is told by the traceback that
  passes through the statement's frame; at most `SETTLE_AFTER_S`, and no longer than to the next loop of its thread.
- Where it cannot be known the record says so, and never FINISHED.

No frame is kept: it would keep the program's objects alive. The opcodes are those of CPython 3.10 to 3.14.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from enum import Enum
from opcode import opmap
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from provd.common import clock
from provd.common.record import Status
from provd.producer import outcome
from provd.producer.outcome import Outcome, outcome_of

if TYPE_CHECKING:
    from provd.producer.channel import Channel

#: Seconds that an iteration waits to learn which exception ended it.
SETTLE_AFTER_S = 1.0

#: `co_flags` of generators, synchronous and not.
_GENERATORS = 0x20 | 0x200


def _opcodes(*names: str) -> frozenset[int]:
    return frozenset(opmap[name] for name in names if name in opmap)


_POPS = _opcodes("POP_TOP", "POP_ITER")
_RAISES = _opcodes("RAISE_VARARGS", "RERAISE")
_RERAISES = _opcodes("RERAISE", "CLEANUP_THROW", "END_ASYNC_FOR", "JUMP_BACKWARD_NO_INTERRUPT", "END_SEND")
_SUSPENDS = _opcodes("YIELD_VALUE", "RESUME")
_ADVANCES = _opcodes("FOR_ITER", "END_FOR")
_CALLS = _opcodes("CALL", "CALL_FUNCTION", "CALL_METHOD", "PRECALL")
_CACHE = opmap.get("CACHE", -1)


class How(Enum):
    """What is known of the way a statement was left."""

    ON_PURPOSE = 1
    BY_EXCEPTION = 2
    UNKNOWN = 3


class Place:
    """An instruction of a frame, without the frame."""

    __slots__ = ("code", "frame_id", "line", "position")

    def __init__(self, frame: FrameType) -> None:
        self.code: CodeType = frame.f_code
        self.frame_id = id(frame)
        self.position = frame.f_lasti
        self.line = frame.f_lineno

    @property
    def opcode(self) -> int:
        """The instruction, as the compiler wrote it."""
        return self.code.co_code[self.position] if self.position >= 0 else -1

    @property
    def text(self) -> str:
        """Where that is, for people."""
        return f"{self.code.co_filename}:{self.line}"

    def is_in(self, frame: FrameType) -> bool:
        """Whether this is a place in `frame`."""
        return self.frame_id == id(frame) and self.code is frame.f_code

    def starts_statement(self, direct: int, advance: int) -> bool | None:
        """Whether the iterator made here went into a `for` statement: itself, or (None) inside of another one.

        `direct` and `advance` are the opcodes that ask for an iterator and for its next item.
        """
        code, at = self.code.co_code, self.position
        called = code[at] in _CALLS
        while called and at + 2 < len(code) and (code[at] in _CALLS or code[at] == _CACHE):
            at += 2
        if at + 2 >= len(code) or code[at] != direct or code[at + 2] != advance:
            return False
        return None if called else True

    def was_passed_by(self, error: BaseException, since: int) -> bool:
        """Whether `error` left the frame from here; after a `finally`, from an instruction after `since`."""
        step = error.__traceback__
        while step is not None:
            if self.is_in(step.tb_frame) and (
                step.tb_lasti == self.position
                or (self.opcode in _RERAISES and since < step.tb_lasti < self.position)
            ):
                return True
            step = step.tb_next
        return False


def how_left(start: Place, frame: FrameType | None) -> tuple[How, list[Place]]:
    """How the statement that asked for its iterator at `start` was left, when `frame` dropped that iterator.

    The places are those that an exception passes if one was the reason.
    """
    if frame is None:
        return How.UNKNOWN, []
    statement = start.starts_statement(opmap["GET_ITER"], opmap["FOR_ITER"])
    closed = False
    if not start.is_in(frame):
        if not start.code.co_flags & _GENERATORS:
            return How.UNKNOWN, []
        closed = True  # since 3.13 a generator is closed without running
    places = [Place(frame)]
    while places[-1].opcode in _SUSPENDS and places[-1].code.co_flags & _GENERATORS:
        closed = True
        frame = frame.f_back
        if frame is None:
            return How.UNKNOWN, places
        places.append(Place(frame))
    return _judge(places[-1].opcode, statement=statement, closed=closed), places


def _judge(opcode: int, *, statement: bool | None, closed: bool) -> How:
    if statement is False:  # kept in a variable: whatever drops it says nothing of how the loop went
        return How.UNKNOWN
    if opcode in _POPS:
        return How.ON_PURPOSE
    if opcode in _RAISES:
        return How.BY_EXCEPTION
    if closed or (statement is None and opcode in _ADVANCES):
        return How.UNKNOWN
    return How.BY_EXCEPTION


class Pending:
    """An iteration left by what is not known yet."""

    def __init__(
        self, channel: Channel, finish: Callable[[Outcome], None], how: How, places: list[Place], start: Place
    ) -> None:
        self.due_at = clock.monotonic() + SETTLE_AFTER_S
        self.thread = threading.get_ident()
        self._channel = channel
        self._finish = finish
        self._how = how
        self._places = places
        self._start = start
        channel.withheld.append(self)
        outcome.witnesses.append(self.see)

    def see(self, error: BaseException) -> None:
        """An exception has reached a block of ours: perhaps it is the one."""
        since = self._start.position
        if any(place.was_passed_by(error, since) for place in self._places) and self._claim():
            self._finish(outcome_of(error))

    def give_up(self) -> None:
        """No block of ours has seen it."""
        if self._claim():
            self._finish(unseen(self._how, self._places[-1] if self._places else self._start))

    def _claim(self) -> bool:
        """Whether it is ours to finish: another thread may be first, and after a fork it is the parent's."""
        _discard(outcome.witnesses, self.see)
        return _discard(self._channel.withheld, self)


def _discard(waiting: list[Any], item: object) -> bool:
    try:
        waiting.remove(item)
    except ValueError:
        return False
    return True


def unseen(how: How, place: Place) -> Outcome:
    """What the record says of an iteration whose end nobody told."""
    if how is How.BY_EXCEPTION:
        return Outcome(
            Status.ERROR,
            f"left by an exception that was handled before it reached a block of provd ({place.text})",
        )
    return Outcome(
        Status.CANCELLED, f"left before it ended; whether by an exception is not known ({place.text})"
    )


def settle(channel: Channel) -> None:
    """Close what still waits in this thread: the program has gone on."""
    thread, error = threading.get_ident(), sys.exc_info()[1]
    for pending in list(channel.withheld):
        if pending.thread == thread:
            if error is not None:
                pending.see(error)
            pending.give_up()
