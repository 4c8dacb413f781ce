"""The calls of one function. Nearly all are plain, and are recorded here in two steps; `Activity` records any other.

- A call is plain when its arguments are numbers and short texts, given in the order of their names, and its result is
  one of those, a dict of them, or None; and when nothing was asked for that takes a closer look: telemetry,
  `durability: disk`, masking, `skip`, callbacks.
- What is recorded of it is the same as on the long way, which everything takes that does not fit, from its beginning.
- The steps are spelled out: in a tight loop, a call of a function of ours costs as much as all that it does.
- Between any two of them a signal handler may raise: its exception goes on to the program, and the task is then among
  the open ones, or among the ended ones, or both, or was not begun.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from provd.common import clock
from provd.common.record import RANKS, Status
from provd.producer import process, rules
from provd.producer.activity import RESULT, Activity, Options, after_task
from provd.producer.capture import SCALARS, SHORT_TEXT, Frozen
from provd.producer.context import context_workflow, current_task, here
from provd.producer.entry import TaskEntry
from provd.producer.interrupts import pass_on
from provd.producer.tracing import trace_fields

if TYPE_CHECKING:
    from provd.common.wire import Shape
    from provd.producer.activity import LightCall
    from provd.producer.channel import Channel

_RUNNING = RANKS[Status.RUNNING.value]
_FINISHED = RANKS[Status.FINISHED.value]

#: The arguments of a call that are not in order: not plain, whatever the function takes.
_OTHER: tuple[Any, ...] = (object(),)

#: Light calls between two looks at the sender; the first after a cut always looks.
_TEND_EVERY = 64

_innermost_workflow = context_workflow.get
_innermost_task = current_task.get
_wall = time.time
_monotonic = clock.monotonic


class Calls(Activity):
    """One captured function, on the short way where that is open."""

    def __init__(self, fn: Callable[..., Any], options: Options) -> None:
        super().__init__(fn, options)
        #: The rules under which the short way was found open; None while it was not.
        self._rules: rules.Rules | None = None
        self._in_order = tuple[str, ...]()
        #: The shape of a plain call until it has ended, and from then on if its result is one value.
        self._begun: Shape | None = None
        self._with_one: Shape | None = None
        #: The same for a tuple whose parts have names.
        self._with_parts: Shape | None = None
        outputs = options.outputs
        #: The same for results that are dicts, by how many keys they have: the last keys' shape, and the way to the values.
        self._with_keys: dict[int, tuple[Callable[[Any], tuple[Any, ...]], Shape]] = {}
        #: Whether a dict names its values itself; and the name of a result that is one value.
        self._by_key = outputs is None
        self._single = RESULT if outputs is None else (outputs,) if isinstance(outputs, str) else None
        self._parts = None if self._single is not None or callable(outputs) else tuple(outputs or ())

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Channel, TaskEntry] | None:
        """Open a task for a call, where calls are recorded now; takes what says otherwise out of its keywords."""
        workflow = _innermost_workflow() or here.workflow
        if workflow is None and here.is_known and (not kwargs or self._overrides.isdisjoint(kwargs)):
            return None
        try:
            channel = None if workflow is None else workflow.channel
            if channel is not None and self._rules is rules.current and channel.is_quick:
                values = args
                if kwargs:
                    values = (
                        tuple(kwargs.values()) if not args and tuple(kwargs) == self._in_order else _OTHER
                    )
                for value in values:
                    kind = type(value)
                    if kind not in SCALARS and (kind is not str or len(value) > SHORT_TEXT or "://" in value):
                        break
                else:
                    if len(values) == len(self._in_order):
                        entry = TaskEntry()
                        entry.shape = self._begun  # type: ignore[assignment]  # there is one, since there are rules
                        entry.producer_id = channel.producer_id
                        entry.counter = counter = next(channel.counter)
                        entry.parent = _innermost_task()
                        entry.used = values
                        entry.duration = entry.generated = entry.reading = None
                        entry.extra = trace_fields() if channel.is_traced else None
                        entry.rank = _RUNNING
                        entry.announced = False
                        entry.started_at = _wall()
                        entry.started = _monotonic()
                        channel.open[counter] = entry
                        return channel, entry
        except Exception as error:  # noqa: BLE001 - looking a class up runs the code of its metaclass
            pass_on(error)
        return super().begin(args, kwargs)

    def end(self, channel: Channel, entry: TaskEntry, result: Any) -> None:
        """Close it with what the call returned."""
        ended = _monotonic()
        try:
            if (
                entry.shape is self._begun
                and self._rules is rules.current  # results are masked by the rules of now, like the arguments
                and channel.is_plain
                and entry.reading is None
            ):
                known = self._with_keys.get(len(result)) if type(result) is dict else None
                if known is None:
                    shape, values = self._plain_result(entry.shape, result)
                else:  # nearly all results with names, and so without a call
                    values_of, shape = known
                    values = values_of(result)
                    for value in values:
                        kind = type(value)
                        if kind not in SCALARS and (
                            kind is not str or len(value) > SHORT_TEXT or "://" in value
                        ):
                            shape = None
                if shape is not None:
                    entry.duration = ended - entry.started
                    entry.rank = _FINISHED
                    entry.shape = shape
                    entry.generated = values
                    entries, still_open, counter = channel.entries, channel.open, entry.counter
                    # A task begun before a fork is its parent's to end: it is not among ours.
                    if counter in still_open and still_open[counter] is entry:
                        entries.append(entry)
                        del still_open[counter]
                    mine = process.current
                    sender = None if mine is None else mine.running
                    if (
                        sender is None
                        or sender.asleep
                        or channel.packed_bytes  # the arguments may be large
                        or channel.rests
                        or len(entries) >= sender.entries_max
                    ):
                        after_task(channel)
                    return
        except Exception as error:  # noqa: BLE001 - as above; what has ended is not ended twice
            pass_on(error)
        super().end(channel, entry, result)

    def begin_light(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> LightCall | None:
        """What is known when a call begins."""
        workflow = _innermost_workflow() or here.workflow
        if workflow is None and here.is_known:
            return None
        try:
            channel = None if workflow is None else workflow.channel
            if channel is not None and self._rules is rules.current:
                values = args
                if kwargs:
                    values = (
                        tuple(kwargs.values()) if not args and tuple(kwargs) == self._in_order else _OTHER
                    )
                for value in values:
                    kind = type(value)
                    if kind not in SCALARS and (kind is not str or len(value) > SHORT_TEXT or "://" in value):
                        break
                else:
                    if len(values) == len(self._in_order):
                        return channel, channel.producer_id, values, self._in_order, _wall()
        except Exception as error:  # noqa: BLE001 - as above
            pass_on(error)
        return super().begin_light(args, kwargs)

    def end_light(self, call: LightCall, duration: float, result: Any) -> None:
        """State a call that went well."""
        channel, producer_id, used, names, started_at = call
        begun = self._begun
        try:
            if (
                names is self._in_order
                and begun is not None
                and self._rules is rules.current
                and channel.is_quick
                and type(used) is tuple
            ):
                shape, values = self._plain_result(begun, result)
                if shape is not None:
                    if channel.producer_id == producer_id:  # else begun before a fork: the parent's to state
                        light, extra = channel.light, trace_fields() if channel.is_traced else None
                        light.append((shape, None, started_at, duration, _FINISHED, used, values, extra))
                        if len(light) % _TEND_EVERY == 1 or channel.rests:
                            after_task(channel)
                    return
        except Exception as error:  # noqa: BLE001 - as above
            pass_on(error)
        super().end_light(call, duration, result)

    def _plain_result(self, begun: Shape, result: Any) -> tuple[Shape | None, tuple[Any, ...] | None]:
        """The shape and the values of a call with this result; no shape where it takes the long way."""
        kind = type(result)
        shape: Shape | None
        values: tuple[Any, ...]
        if kind is dict and self._by_key:
            known = self._with_keys.get(len(result))
            if known is None:
                return None, None
            values_of, shape = known
            try:
                values = values_of(result)
            except KeyError:
                return None, None  # it has as many, and others
        elif result is None:
            return begun, None
        elif kind is tuple and self._with_parts is not None:
            shape, values = self._with_parts, result
            if len(values) != len(self._parts or ()):
                return None, None
        else:
            shape, values = self._with_one, (result,)
        for value in values:
            kind = type(value)
            if kind not in SCALARS and (kind is not str or len(value) > SHORT_TEXT or "://" in value):
                return None, None
        return shape, values

    # --- finding the short way, on the long one ---

    def used(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Frozen, tuple[str, ...] | None]:
        """The arguments of a call, and their names unless they name themselves."""
        if self._rules is not rules.current and self.looks_at_nothing:
            names = self.signature.plain_names
            if names is not None:
                self._rules = None
                self._in_order, self._begun = names, self.shape(names, None)
                self._with_one = self._with_parts = None
                self._with_keys = {}
                self._rules = rules.current_rules()
        return super().used(args, kwargs)

    def generated(self, result: Any) -> tuple[tuple[str, ...] | None, Frozen | None]:
        """The names and values of a result; both absent for None."""
        names, values = super().generated(result)
        if names is not None and self._rules is not None and not self._rules.secrets.positions(names):
            shape = self.shape(self._in_order, names)
            if type(result) is dict and self._by_key:
                self._with_keys[len(names)] = _values_under(names), shape
            elif names == self._single:
                self._with_one = shape
            elif self._parts == names and type(result) is tuple:
                self._with_parts = shape
        return names, values


def _values_under(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """What takes the values under these names from a dict that has no others."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda result: tuple([result[name] for name in names])
