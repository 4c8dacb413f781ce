"""What is recorded of every call of one function: decided when it is decorated, applied at each call."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from provd.common.errors import InvalidId
from provd.common.ids import check_id
from provd.common.record import Kind, Record
from provd.common.wire import Shape
from provd.producer.capture import Frozen, convert, freeze, freeze_map
from provd.producer.channel import Channel, TaskEntry
from provd.producer.context import current_task
from provd.producer.process import producer
from provd.producer.signature import Signature
from provd.producer.warning import warn_once
from provd.producer.workflow import current_workflow

#: Result shapes kept per function; a function whose dicts have ever other keys names them in each row.
_SHAPES_MAX = 16

#: Keywords of a call that say where it is recorded, unless the function takes them itself.
_OVERRIDES = ("workflow_id", "campaign_id")

Outputs: TypeAlias = str | Sequence[str] | Callable[[Any], Mapping[str, Any]]
Capture: TypeAlias = Callable[[dict[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Options:
    """What the decorator was given."""

    outputs: Outputs | None = None
    tags: Sequence[str] = ()
    metadata: Mapping[str, Any] | None = None
    subtype: str | None = None
    capture: Capture | None = None
    skip: Collection[str] = ()
    agent_id: str | None = None
    light: bool = False


class Activity:
    """One captured function."""

    def __init__(self, fn: Callable[..., Any], options: Options) -> None:
        self.name = getattr(fn, "__name__", None) or type(fn).__name__
        self.signature = Signature(fn, options.skip)
        self._fixed = tuple(_fixed(self.name, options).items())
        self._capture = options.capture
        self._function = options.outputs if callable(options.outputs) else None
        self._names = _names(options.outputs)
        self._one = isinstance(options.outputs, str)
        self._shapes: dict[tuple[tuple[str, ...] | None, tuple[str, ...] | None], Shape] = {}
        self._overrides = tuple(name for name in _OVERRIDES if not self.signature.declares(name))

    def place(self, kwargs: dict[str, Any]) -> tuple[Channel | None, Record | None]:
        """Where this call is recorded, if anywhere, and what its record says of that beside; takes overrides out."""
        workflow = current_workflow()
        if kwargs and any(name in kwargs for name in self._overrides):
            return self._overridden(kwargs, workflow.channel if workflow is not None else None)
        return (workflow.channel if workflow is not None else None), None

    def begin(
        self, channel: Channel, args: tuple[Any, ...], kwargs: dict[str, Any], extra: Record | None = None
    ) -> TaskEntry:
        """Open a task for a call."""
        used, names = self.used(args, kwargs)
        entry = channel.begin(self.shape(names, None), used, current_task.get())
        entry.extra = extra
        return entry

    def end(self, channel: Channel, entry: TaskEntry, result: Any) -> None:
        """Close it with what the call returned."""
        names, generated = self.generated(result)
        if names is not None:
            entry.shape = self.shape(entry.shape.used_names, names)
        channel.end(entry, generated)

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
                return None, freeze_map(chosen)
        if self._names is not None:
            if self._one:
                return self._names, freeze((result,))
            if isinstance(result, tuple) and len(result) == len(self._names):
                return self._names, freeze(tuple(result))
        if type(result) is dict:
            names = tuple(result)
            if len(self._shapes) < _SHAPES_MAX and all(type(name) is str for name in names):
                return names, freeze(tuple(result.values()))
            return None, freeze_map(result)
        return ("result",), freeze((result,))

    def shape(self, used: tuple[str, ...] | None, generated: tuple[str, ...] | None) -> Shape:
        """The shape of rows with these names."""
        key = (used, generated)
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._shapes[key] = Shape(Kind.TASK, self._fixed, used, generated)
        return shape

    def _overridden(
        self, kwargs: dict[str, Any], channel: Channel | None
    ) -> tuple[Channel | None, Record | None]:
        asked = {name: kwargs.pop(name, None) for name in self._overrides}
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
        return channel, {"campaign_id": campaign_id}

    def _ask(self, function: Callable[[Any], Mapping[str, Any]], value: Any) -> Mapping[str, Any] | None:
        """Ask a function of the user's what to record; None when it does not say."""
        try:
            return dict(function(value))
        except Exception as error:  # noqa: BLE001 - a user's callback may raise anything
            warn_once(
                f"capture {self.name}",
                f"{self.name}: {type(error).__name__} in what says what to record: {error}",
            )
            return None


def after_task(channel: Channel) -> None:
    """Wake a sleeping sender, and help one that cannot keep up."""
    sender = producer().sender
    if sender.asleep:
        sender.wake()
    sender.relieve(channel)


def _fixed(name: str, options: Options) -> Record:
    fixed = {
        "activity_id": str(name),
        "subtype": options.subtype,
        "tags": [str(tag) for tag in options.tags] or None,
        "custom_metadata": convert(dict(options.metadata)) if options.metadata else None,
        "agent_id": options.agent_id,
    }
    return {key: value for key, value in fixed.items() if value is not None}


def _names(outputs: Outputs | None) -> tuple[str, ...] | None:
    if outputs is None or callable(outputs):
        return None
    return (outputs,) if isinstance(outputs, str) else tuple(outputs)
