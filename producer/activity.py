"""What is recorded of every call of one function: decided when it is decorated, applied at each call."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from provd.common import clock
from provd.common.errors import InvalidId
from provd.common.ids import check_id
from provd.common.record import RANKS, Kind, Record, Status
from provd.producer import process
from provd.producer.border import swallow
from provd.producer.capture import Frozen, can_share, convert, freeze_map, freeze_named
from provd.producer.context import current_task
from provd.producer.interrupts import pass_on
from provd.producer.outcome import outcome_of
from provd.producer.process import producer
from provd.producer.rules import current_rules
from provd.producer.signature import Signature
from provd.producer.warning import warn_once
from provd.producer.workflow import current_workflow

if TYPE_CHECKING:
    from provd.common.wire import Shape
    from provd.producer.channel import Channel
    from provd.producer.entry import TaskEntry
    from provd.producer.telemetry import Reading

    #: A light call on its way: channel, producer, arguments, their names, and its start in seconds since 1970.
    LightCall: TypeAlias = tuple[Channel, str, Frozen, tuple[str, ...] | None, float]

#: Result shapes kept per function; a function whose dicts have ever other keys names them in each row.
_SHAPES_MAX = 16

#: The name of a result that has no other.
RESULT = ("result",)

#: Keywords of a call that say where it is recorded, unless the function takes them itself.
_OVERRIDES = ("workflow_id", "campaign_id")

Outputs: TypeAlias = str | Sequence[str] | Callable[[Any], Mapping[str, Any]]
Telemetry: TypeAlias = bool | str | Iterable[str]
Capture: TypeAlias = Callable[[dict[str, Any]], Mapping[str, Any]]


class Options(NamedTuple):
    """What the decorator was given."""

    outputs: Outputs | None = None
    tags: str | Sequence[str] = ()
    metadata: Mapping[str, Any] | None = None
    subtype: str | None = None
    capture: Capture | None = None
    skip: Collection[str] = ()
    agent_id: str | None = None
    light: bool = False
    telemetry: Telemetry | None = None


#: Light calls between two looks at the sender; the first after a cut always looks.
_TEND_EVERY = 64


class Activity:
    """One captured function."""

    def __init__(self, fn: Callable[..., Any], options: Options) -> None:
        self.name = getattr(fn, "__name__", None) or type(fn).__name__
        self.signature = Signature(fn, options.skip)
        self._options = options
        self._capture = options.capture
        self._telemetry = groups_asked(options.telemetry)
        self._function = options.outputs if callable(options.outputs) else None
        self._names = _names(options.outputs)
        self._one = isinstance(options.outputs, str)
        self._shapes: dict[tuple[tuple[str, ...] | None, tuple[str, ...] | None], Shape] = {}
        self._overrides = frozenset(name for name in _OVERRIDES if not self.signature.declares(name))

    @property
    def looks_at_nothing(self) -> bool:
        """Whether nothing was asked for that takes a look at each call, or a function of the user's."""
        return self._capture is None and self._function is None and not self._telemetry

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Channel, TaskEntry] | None:
        """Open a task for a call, where calls are recorded now; takes what says otherwise out of its keywords."""
        try:
            channel, extra = self._place(kwargs)
            if channel is None:
                return None
            used, names = self.used(args, kwargs)
            groups = channel.telemetry if self._telemetry is None else self._telemetry
            reading = start_reading(groups) if groups else None
            entry = channel.begin(self.shape(names, None), used, current_task.get())
            if extra is not None:
                entry.extra = {**(entry.extra or {}), **extra}
            entry.reading = reading
        except Exception as error:  # noqa: BLE001 - the border of the traced program
            swallow(error)
            return None
        return channel, entry

    def end(self, channel: Channel, entry: TaskEntry, result: Any) -> None:
        """Close it with what the call returned."""
        ended = clock.monotonic()
        try:
            names, generated = self.generated(result)
            if names is not None:
                entry.shape = self.shape(entry.shape.used_names, names)
            channel.end(entry, generated, ended)
            after_task(channel)
        except Exception as error:  # noqa: BLE001 - the border of the traced program
            swallow(error)

    def fail(self, channel: Channel, entry: TaskEntry, raised: BaseException) -> None:
        """Close it with what the call raised."""
        try:
            channel.fail(entry, outcome_of(raised))
            after_task(channel)
        except Exception as error:  # noqa: BLE001 - the border of the traced program
            swallow(error)

    # --- the cheapest form: no parent, no place by call, never open ---

    def begin_light(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> LightCall | None:
        """What is known when a call begins."""
        try:
            workflow = current_workflow()
            if workflow is None or workflow.channel is None:
                return None
            used, names = self.used(args, kwargs)
        except Exception as error:  # noqa: BLE001 - the border of the traced program
            swallow(error)
            return None
        return workflow.channel, workflow.channel.producer_id, used, names, time.time()

    def end_light(self, call: LightCall, duration: float, result: Any) -> None:
        """State a call that went well."""
        try:
            names, generated = self.generated(result)
            self._note(call, duration, names, generated)
        except Exception as error:  # noqa: BLE001 - the border of the traced program
            swallow(error)

    def fail_light(self, call: LightCall, duration: float, raised: BaseException) -> None:
        """State a call that raised."""
        try:
            fields = outcome_of(raised).fields()
            self._note(call, duration, None, None, RANKS[fields.pop("status")], fields)
        except Exception as error:  # noqa: BLE001 - the border of the traced program
            swallow(error)

    def _note(
        self,
        call: LightCall,
        duration: float,
        names: tuple[str, ...] | None,
        generated: Frozen | None,
        rank: int = RANKS[Status.FINISHED.value],
        extra: Record | None = None,
    ) -> None:
        channel, producer_id, used, used_names, started_at = call
        if channel.producer_id != producer_id:
            return  # begun before a fork: the parent's to state
        channel.note(self.shape(used_names, names), used, generated, started_at, duration, None, rank, extra)
        # What is durable has been taken off already; of a channel that rests nobody else would take it.
        if len(channel.light) % _TEND_EVERY == 1 or channel.is_durable or channel.rests:
            after_task(channel)

    def _place(self, kwargs: dict[str, Any]) -> tuple[Channel | None, Record | None]:
        workflow = current_workflow()
        channel = workflow.channel if workflow is not None else None
        if kwargs and not self._overrides.isdisjoint(kwargs):
            return self._overridden(kwargs, channel)
        return channel, None

    def used(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Frozen, tuple[str, ...] | None]:
        """The arguments of a call, and their names unless they name themselves."""
        if self._capture is not None:
            chosen = self._ask(self._capture, self.signature.bound(args, kwargs))
            if chosen is not None:
                return freeze_map(chosen), None
        frozen, in_order = self.signature.freeze(args, kwargs)
        return frozen, self.signature.names if in_order else None

    def generated(self, result: Any) -> tuple[tuple[str, ...] | None, Frozen | None]:
        """The names and values of a result; both absent for None."""
        if result is None:
            return None, None
        if self._function is not None:
            chosen = self._ask(self._function, result)
            if chosen is not None:
                return None, freeze_map(chosen, made=True)
        if self._names is not None:
            if self._one:
                return self._names, freeze_named(self._names, (result,))
            if isinstance(result, (tuple, list)) and len(result) == len(self._names):
                return self._names, freeze_named(self._names, tuple(result))
        if type(result) is dict:
            names = tuple(result)
            if len(self._shapes) < _SHAPES_MAX and can_share(names):
                return names, freeze_named(names, tuple(result.values()))
            return None, freeze_map(result, made=True)
        return RESULT, freeze_named(RESULT, (result,))

    def shape(self, used: tuple[str, ...] | None, generated: tuple[str, ...] | None) -> Shape:
        """The shape of rows with these names."""
        key = (used, generated)
        shape = self._shapes.get(key)
        if shape is None:
            from provd.common.wire import Shape  # loaded by now, with the channel

            # Read now and not when the function was decorated: by now it is known what is to be masked.
            fixed = tuple(_fixed(self.name, self._options).items())
            shape = self._shapes[key] = Shape(Kind.TASK, fixed, used, generated)
        return shape

    def _overridden(
        self, kwargs: dict[str, Any], channel: Channel | None
    ) -> tuple[Channel | None, Record | None]:
        asked = {name: kwargs.pop(name, None) for name in _OVERRIDES if name in self._overrides}
        try:
            given = {name: check_id(value, name) for name, value in asked.items() if value is not None}
        except InvalidId as error:
            warn_once("override", f"{self.name}: {error}; the call is recorded where the others are")
            return channel, None
        campaign_id = given.get("campaign_id")
        current = producer()
        if "workflow_id" in given and current.settings.enabled:
            inherited = channel.campaign_id if channel is not None else None
            channel = current.channel(given["workflow_id"], campaign_id or inherited)
        if channel is None or campaign_id in (None, channel.campaign_id):
            return channel, None
        channel.account.name_campaign(campaign_id)
        return channel, {"campaign_id": campaign_id}

    def _ask(self, function: Callable[[Any], Mapping[str, Any]], value: Any) -> Mapping[str, Any] | None:
        """Ask a function of the user's what to record; None when it does not say."""
        try:
            return dict(function(value))
        except Exception as error:  # noqa: BLE001 - a user's callback may raise anything
            pass_on(error)
            warn_once(
                f"capture {self.name}",
                f"{self.name}: {type(error).__name__} in what says what to record: {error}",
            )
            return None


def groups_asked(telemetry: Telemetry | None) -> tuple[str, ...] | None:
    """The groups of readings that tasks ask for; None leaves it to the settings."""
    if telemetry is None:
        return None
    from provd.producer.telemetry import chosen

    return chosen(telemetry)


def start_reading(groups: tuple[str, ...]) -> Reading | None:
    """The first reading of a task that has telemetry. Only now is there anything to import for it."""
    from provd.producer.telemetry import read_start

    return read_start(groups)


def after_task(channel: Channel) -> None:
    """Wake a sleeping sender, and help one that cannot keep up."""
    mine = process.current
    sender = (None if mine is None else mine.running) or producer().sender
    if sender.asleep:
        sender.wake()
    waiting = len(channel.entries) + len(channel.light)
    if waiting >= sender.entries_max or channel.packed_bytes or channel.rests or not channel.is_plain:
        sender.relieve(channel)


def text_or_none(value: Any) -> str | None:
    """What should be text, as text: an `Enum` member gives its value."""
    return None if value is None else str(convert(value))


def tags_of(tags: str | Sequence[str]) -> list[str] | None:
    """Labels as a record has them: one alone is a list of one, none is absent."""
    return [tags] if isinstance(tags, str) else [str(tag) for tag in tags] or None


def _fixed(name: str, options: Options) -> Record:
    fixed = {
        "activity_id": str(name),
        "subtype": text_or_none(options.subtype),
        "tags": tags_of(options.tags),
        "custom_metadata": convert(dict(options.metadata)) if options.metadata else None,
        "agent_id": text_or_none(options.agent_id),
    }
    return current_rules().secrets.fields({key: value for key, value in fixed.items() if value is not None})


def _names(outputs: Outputs | None) -> tuple[str, ...] | None:
    if outputs is None or callable(outputs):
        return None
    return (outputs,) if isinstance(outputs, str) else tuple(outputs)
