"""Workflows: one execution, owned by whoever made its id.

- Without an id, `workflow` makes one, owns it and ends it. With an id (given, from the command line, or from the
  environment) it joins: it says how its own part ended, and nothing of how the workflow did, unless `own=True`.
- The end of a `with` block in a process that did not enter it does nothing: after a fork it is the parent's.
- Nothing here raises into the program, except for an id that the program itself gave and that cannot be one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from provd.common import clock, ids
from provd.common.record import Record, Status
from provd.producer import context, forks
from provd.producer.arguments import parsed_ids
from provd.producer.border import swallow
from provd.producer.context import here
from provd.producer.outcome import Outcome, outcome_of
from provd.producer.process import producer
from provd.producer.tracing import is_loaded, trace_fields
from provd.producer.warning import warn_once

if TYPE_CHECKING:
    from provd.producer.channel import Channel
    from provd.producer.fingerprints import Inputs

P = ParamSpec("P")
R = TypeVar("R")

AUTOMATIC = "auto"

#: The code flag of a coroutine function.
_COROUTINE = 0x80

_ID_VARIABLES = ("PROVD_WORKFLOW_ID", "PROVD_CAMPAIGN_ID")


class Workflow:
    """A workflow of this process: a context manager, a decorator, or `start` and `stop`.

    `workflow_id` and `campaign_id` are known once it has started; without capture both stay None.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        workflow_id: str | None = None,
        campaign_id: str | None = None,
        own: bool = False,
        args: Mapping[str, Any] | None = None,
        subtype: str | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        parent_workflow_id: str | None = None,
        persist: bool = False,
        input_fingerprint: Inputs | None = None,
        code_ref: str | None = None,
        config_hash: str | None = None,
    ) -> None:
        self.name = name
        self.workflow_id = workflow_id
        self.campaign_id = campaign_id
        self.owned = own
        self.channel: Channel | None = None
        self._own = own
        self._given_id = workflow_id
        self._given_campaign = campaign_id
        self._parent_id = parent_workflow_id
        self._persist = persist
        self._persisting: Any = None
        self._stated: Record = {
            "args": dict(args) if args else None,
            "subtype": subtype,
            "tags": list(tags) or None,
            "custom_metadata": dict(metadata) if metadata else None,
        }
        self._fingerprints = {
            "input_fingerprint": input_fingerprint,
            "code_ref": code_ref,
            "config_hash": config_hash,
        }
        #: Fields of the record that its maker knows better than this process.
        self.facts: Record = {}
        self._record: Record = {}
        self._started = 0.0
        self._pid = 0
        self._enclosing: Workflow | None = None
        self._environment: dict[str, str | None] = {}

    def start(self) -> Workflow:
        """Begin; tasks from here on belong to this workflow. Raises `InvalidId` for an id that cannot be one."""
        if self._given_id is not None and self._given_id != AUTOMATIC:
            ids.check_id(self._given_id, "workflow_id")
        for value, what in ((self._given_campaign, "campaign_id"), (self._parent_id, "parent_workflow_id")):
            if value is not None:
                ids.check_id(value, what)
        try:
            self._begin()
        except Exception as error:  # noqa: BLE001 - the border of the traced program
            swallow(error)
        return self

    def _begin(self) -> None:
        current = producer()
        if not current.settings.enabled or self._pid == os.getpid():
            return
        self._enclosing = context.context_workflow.get() or here.workflow
        self._resolve()
        assert self.workflow_id is not None
        self._started = clock.monotonic()
        self._pid = os.getpid()
        self.channel = current.channel(self.workflow_id, self.campaign_id)
        self.channel.reopen()
        self._record = self._first_record()
        self.channel.state_workflow(dict(self._record))
        self._enter()
        current.at_close.append(self.stop)
        current.sample(self.channel)
        current.sender.wake()
        if self._persist:
            self._persisting = _start_persisting(self.workflow_id)

    def stop(self, error: BaseException | None = None) -> None:
        """End, by itself or because of `error`. Nothing, in a process that did not start it, or the second time."""
        self.end(outcome_of(error))

    def end(self, outcome: Outcome) -> None:
        """End as someone else says it ended."""
        try:
            self._finish(outcome)
        except Exception as error:  # noqa: BLE001 - the border of the traced program
            swallow(error)

    def _finish(self, outcome: Outcome) -> None:
        if self._pid != os.getpid() or self.channel is None:
            return
        self._pid = 0
        self._leave()
        producer().stop_sampling(self.channel)
        if self.owned:
            self.channel.state_workflow(self._last_record(outcome))
        self.channel.close(outcome)
        current = producer()
        if self.stop in current.at_close:
            current.at_close.remove(self.stop)
        current.sender.wake()
        if self._persisting is not None:
            self._persisting.finish()

    def __enter__(self) -> Workflow:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop(error)

    def __call__(self, fn: Callable[P, R]) -> Callable[P, R]:
        """Run every call of `fn` as a workflow of its own; of a coroutine function, to its last step."""
        wrapped: Callable[P, R] = _each_call(fn, lambda: self._again(fn))
        return wrapped

    def _again(self, fn: Callable[..., Any]) -> Workflow:
        copy = Workflow(
            self.name or getattr(fn, "__name__", None),
            workflow_id=self._given_id,
            campaign_id=self._given_campaign,
            own=self._own,
            parent_workflow_id=self._parent_id,
            persist=self._persist,
        )
        copy._stated = dict(self._stated)
        copy._fingerprints = self._fingerprints
        return copy

    # --- ids ---

    def _resolve(self) -> None:
        """Find the ids: given by the program, by the command line, by the environment, or made here."""
        asked = _ids_asked_for() if self._enclosing is None else (None, None)
        wanted = self._given_id or asked[0]
        if self.campaign_id is None:
            self.campaign_id = asked[1] or (self._enclosing.campaign_id if self._enclosing else None)
        if wanted == AUTOMATIC:
            wanted = self._resolve_automatic()
        self.workflow_id = wanted or ids.new_workflow_id()
        self.owned = self._own or wanted is None

    def _resolve_automatic(self) -> str | None:
        from provd.producer.identity import automatic_id

        automatic = automatic_id()
        if automatic is None:
            warn_once(
                "auto",
                "workflow id 'auto' needs a scheduler's job around it; this process makes an id of its own",
            )
            return None
        self._stated["attempt"] = automatic.attempt
        self._stated["predecessor"] = automatic.predecessor
        return automatic.workflow_id

    # --- records ---

    def _first_record(self) -> Record:
        """What is known at the start. A joiner ranks lowest and states no time: those are the owner's to say."""
        from provd.producer.capture import convert  # loaded by now, with the channel

        record: Record = {key: convert(value) for key, value in self._stated.items() if value is not None}
        record["name"] = _script_name() if self.name is None else str(convert(self.name))
        parent_id = self._parent_id or (self._enclosing.workflow_id if self._enclosing is not None else None)
        if parent_id not in (None, self.workflow_id):
            record["parent_workflow_id"] = parent_id
        current = producer()
        record |= {"user": current.identity.user, "argv": convert(list(sys.argv)), "cwd": _cwd()}
        record |= {"code": current.code, "environment": current.environment}
        if self.owned:
            record |= {"status": Status.RUNNING.value, "started_at": clock.now_ms()}
        else:
            record["status"] = Status.SUBMITTED.value
        record |= self.facts
        with forks.loading:
            from provd.producer.fingerprints import fingerprints
        record |= fingerprints(self._fingerprints, record)
        return record | ((trace_fields() or {}) if is_loaded() else {})

    def _last_record(self, outcome: Outcome) -> Record:
        duration = clock.monotonic() - self._started
        ended_at = self._record["started_at"] + round(duration * 1000)
        return self._record | self.facts | outcome.fields() | {"ended_at": ended_at, "duration": duration}

    # --- being current ---

    def _enter(self) -> None:
        context.context_workflow.set(self)
        if here.workflow is None or here.workflow.channel is None:
            here.workflow = self
            self._export()

    def _leave(self) -> None:
        if context.context_workflow.get() is self:
            context.context_workflow.set(self._enclosing if self._enclosing is not here.workflow else None)
        if here.workflow is self:
            here.workflow = None
            self._restore()

    def _export(self) -> None:
        """Let processes started from here on join: they have no other way to know."""
        for variable, value in zip(_ID_VARIABLES, (self.workflow_id, self.campaign_id)):
            self._environment[variable] = os.environ.get(variable)
            if value is not None:
                os.environ[variable] = value

    def _restore(self) -> None:
        for variable, value in self._environment.items():
            if value is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = value
        self._environment = {}


def _each_call(fn: Any, begin: Callable[[], Workflow]) -> Any:
    if getattr(getattr(fn, "__code__", None), "co_flags", 0) & _COROUTINE:

        @wraps(fn)
        async def run_coroutine(*args: Any, **kwargs: Any) -> Any:
            with begin():
                return await fn(*args, **kwargs)

        return run_coroutine

    @wraps(fn)
    def run(*args: Any, **kwargs: Any) -> Any:
        with begin():
            return fn(*args, **kwargs)

    return run


def workflow(
    name: str | None = None,
    *,
    workflow_id: str | None = None,
    campaign_id: str | None = None,
    own: bool = False,
    args: Mapping[str, Any] | None = None,
    subtype: str | None = None,
    tags: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
    parent_workflow_id: str | None = None,
    persist: bool = False,
    input_fingerprint: Inputs | None = None,
    code_ref: str | None = None,
    config_hash: str | None = None,
) -> Workflow:
    """A workflow to enter, to start, or to decorate a function with.

    `workflow_id` joins a workflow that someone else made; `own=True` owns it all the same. Without one, the id comes
    from `--workflow-id` (see `provd.add_arguments`), else from `PROVD_WORKFLOW_ID`, else it is made here.
    `persist=True` brings the records into the store from a thread of this program, for machines without a consumer.
    `input_fingerprint` is a text, or the files that go in (`provd.File` or a path, several, or a dict of them by name),
    whose checksums are combined when it starts. `code_ref` is by default the commit of the script, `-dirty` where what
    runs differs from it; `config_hash` by default a hash of `args`.

    Raises `InvalidId` on start when `workflow_id` or `campaign_id` is not 1-128 ASCII letters, digits and `._-`.
    """
    return Workflow(
        name,
        workflow_id=workflow_id,
        campaign_id=campaign_id,
        own=own,
        args=args,
        subtype=subtype,
        tags=tags,
        metadata=metadata,
        parent_workflow_id=parent_workflow_id,
        persist=persist,
        input_fingerprint=input_fingerprint,
        code_ref=code_ref,
        config_hash=config_hash,
    )


def _start_persisting(workflow_id: str) -> Any:
    """Start the consumer's side in this process; None, with a warning, where it is not installed."""
    from importlib import import_module

    try:
        # By name: the producer does not depend on the consumer, which a compute node does not even have.
        return import_module("provd.persisting").start(workflow_id, producer())
    except ImportError as error:
        warn_once("persist", f"persist=True: {error}")
        return None


def current_workflow() -> Workflow | None:
    """The workflow of this context, of this process, or the one the environment names; None without any."""
    return context.context_workflow.get() or here.workflow or _join_environment()


def _join_environment() -> Workflow | None:
    """A task outside of any workflow joins the one its process was started in, to the end of the process."""
    if here.is_known:
        return None
    here.is_known = True
    current = producer()
    if not current.settings.enabled or _ids_asked_for()[0] is None:
        return None
    joined = Workflow()
    joined.start()
    return joined if joined.channel is not None else None


def _ids_asked_for() -> tuple[str | None, str | None]:
    """Workflow and campaign id from the command line, else from the settings."""
    settings = producer().settings
    workflow_id, campaign_id = parsed_ids()
    return workflow_id or settings.workflow_id, campaign_id or settings.campaign_id


def _script_name() -> str:
    name = sys.argv[0] if sys.argv else ""
    return os.path.basename(name) or "python"


def _cwd() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None  # the folder is gone
