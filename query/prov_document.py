"""A run as W3C PROV, by the library `prov`: PROV-JSON and PROV-N.

- Tasks and the workflow are activities; producers, the user and what a task was done for (`agent_id`) are agents; what
  a task used, and what it generated, are an entity each, with an attribute a value; a value that can be followed
  (`provd.store.links`) is one entity, whoever used or generated it.
- An entity is generated once, as PROV-CONSTRAINTS asks: where several tasks generated an equal value, each generated
  one of its own, a specialization of the value.
- Ids and names hold any text: what PROV-N has no place for is percent-encoded.
- Values keep their types. What has no type in PROV is tagged JSON (`provd.common.values`), of the type `provd:json`.
- The library holds the document in memory, whence the limit.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO

from provd.common import values
from provd.common.errors import MissingExtra
from provd.common.record import Record
from provd.query.run_records import RunRecords, check_size, encoded, is_text, read_records
from provd.store.links import FILE, GENERATED, KEY, OBJECT, USED, followed

if TYPE_CHECKING:
    from prov.model import ProvDocument

    from provd.query.exports import Exported

#: Tasks of a run that becomes a document.
TASKS_MAX = 50_000

#: The namespaces: our words, names of values, and ids by what they are of.
NAMESPACES = {"provd": "urn:provd:terms:", "value": "urn:provd:value:"} | {
    kind: f"urn:provd:{kind}:"
    for kind in (
        "workflow", "task", "producer", "user", "agent", "code", "inputs", "outputs", "file", "key", "object", "made",
    )
}  # fmt: skip

_INT64 = range(-(1 << 63), 1 << 63)
_KINDS = {FILE: "file", KEY: "key", OBJECT: "object"}

#: Fields that stand elsewhere than among the attributes of an activity.
_TASK_STATED = frozenset(
    {"task_id", "workflow_id", "started_at", "ended_at", "used", "generated", "parent_task_id", "depends_on",
     "agent_id", "hostname", "pid", "rank"}
)  # fmt: skip
_WORKFLOW_STATED = frozenset({"workflow_id", "started_at", "ended_at", "user", "code", "pid", "rank", "name"})
_PRODUCER_STATED = frozenset({"workflow_id", "seq", "campaign_id"})


def export_prov_json(run: Exported, stream: BinaryIO) -> Mapping[str, Any]:
    """The run as PROV-JSON."""
    return _export(run, stream, "json", "prov-json")


def export_prov_n(run: Exported, stream: BinaryIO) -> Mapping[str, Any]:
    """The run as PROV-N."""
    return _export(run, stream, "provn", "prov-n")


def _export(run: Exported, stream: BinaryIO, serializer: str, format: str) -> Mapping[str, Any]:
    try:
        from prov.model import ProvDocument
    except ModuleNotFoundError as error:
        raise MissingExtra(format, "export") from error
    check_size(run, TASKS_MAX, format)
    document = ProvDocument()
    told = _Statements(document).state(read_records(run))
    text = io.StringIO()
    document.serialize(text, format=serializer)
    stream.write(text.getvalue().encode())
    return told


class _Statements:
    def __init__(self, document: ProvDocument) -> None:
        self.document = document
        self.spaces = {prefix: document.add_namespace(prefix, uri) for prefix, uri in NAMESPACES.items()}
        self.known: set[tuple[str, str]] = set()
        self.makers: dict[str, list[str]] = {}
        self.tasks = 0

    def state(self, records: RunRecords) -> Mapping[str, Any]:
        """Say all of a run."""
        self._workflow(records.workflow)
        user = records.workflow.get("user")
        for producer in records.producers:
            self._producer(producer, user)
        for task in records.tasks():
            self._task(task)
        self._generated()
        return {"tasks": self.tasks, "statements": len(self.document.records)}

    # --- activities ------------------------------------------------------------------------------------------------

    def _workflow(self, workflow: Record) -> None:
        workflow_id = workflow["workflow_id"]
        attributes = {"prov:type": self._name("provd", "Workflow")} | self._label(workflow.get("name"))
        attributes |= self._fields(workflow, _WORKFLOW_STATED)
        activity = self._activity("workflow", workflow_id, workflow, attributes)
        plan = self._plan(workflow_id, workflow.get("code"))
        user = workflow.get("user")
        if isinstance(user, str) and user:
            person = {"prov:type": self._prov("Person")} | self._label(user)
            self._agent("user", user, person)
            self.document.wasAssociatedWith(activity, self._id("user", user), plan)
        elif plan is not None:
            self.document.wasAssociatedWith(activity, None, plan)
        parent, earlier = workflow.get("parent_workflow_id"), workflow.get("predecessor")
        if isinstance(parent, str) and parent:
            self.document.wasStartedBy(activity, starter=self._id("workflow", parent))
        if isinstance(earlier, str) and earlier:
            kind = {"prov:type": self._name("provd", "predecessor")}
            self.document.wasInformedBy(activity, self._id("workflow", earlier), None, kind)

    def _plan(self, workflow_id: str, code: Any) -> Any:
        if not isinstance(code, dict) or not code:
            return None
        plan = self._id("code", workflow_id)
        self.document.entity(plan, {"prov:type": self._prov("Plan")} | self._fields(code, frozenset()))
        return plan

    def _task(self, task: Record) -> None:
        self.tasks += 1
        task_id = task["task_id"]
        attributes = {"prov:type": self._name("provd", "Task")} | self._label(task.get("activity_id"))
        activity = self._activity("task", task_id, task, attributes | self._fields(task, _TASK_STATED))
        if isinstance(task.get("producer_id"), str):
            self._agent("producer", task["producer_id"], {"prov:type": self._prov("SoftwareAgent")})
            self.document.wasAssociatedWith(activity, self._id("producer", task["producer_id"]))
        if isinstance(task.get("agent_id"), str):
            self._agent("agent", task["agent_id"], {"prov:type": self._prov("SoftwareAgent")})
            self.document.wasAssociatedWith(activity, self._id("agent", task["agent_id"]))
        self._origin(activity, task)
        self._values(activity, task)

    def _origin(self, activity: Any, task: Record) -> None:
        """What the task came of: another task that called it, or the workflow; and those that it says it builds on."""
        parent = task.get("parent_task_id")
        if isinstance(parent, str) and parent:
            self._informed(activity, parent, "call")
        else:
            self.document.wasStartedBy(activity, starter=self._id("workflow", task["workflow_id"]))
        stated = task.get("depends_on")
        for other in dict.fromkeys(stated if isinstance(stated, list) else ()):
            if isinstance(other, str):
                self._informed(activity, other, "dependency")

    def _informed(self, activity: Any, task_id: str, kind: str) -> None:
        informant = self._id("task", task_id)
        self.document.wasInformedBy(activity, informant, None, {"prov:type": self._name("provd", kind)})

    # --- values ----------------------------------------------------------------------------------------------------

    def _values(self, activity: Any, task: Record) -> None:
        task_id = task["task_id"]
        for direction, kind in ((USED, "inputs"), (GENERATED, "outputs")):
            said = task.get(direction)
            if not isinstance(said, dict) or not said:
                continue
            entity = self._id(kind, task_id)
            attributes = {
                self._name("value", _key_text(key)): self._literal(value) for key, value in said.items()
            }
            self.document.entity(entity, {"prov:type": self._name("provd", kind)} | attributes)
            if direction == USED:
                self.document.used(activity, entity)
            else:
                self.document.wasGeneratedBy(entity, activity)
        for direction, key, said in followed(task):
            entity = self._followed(key, said)
            if direction == USED:
                self.document.used(activity, entity)
            else:
                self.makers.setdefault(key, []).append(task_id)

    def _generated(self) -> None:
        """Who made the values that can be followed."""
        for key, makers in self.makers.items():
            for task_id in makers:
                made = entity = self._id(*_kind_of(key))
                if len(makers) > 1:
                    made = self._id("made", f"{task_id}/{key}")
                    self.document.entity(made, {"prov:type": self._name("provd", "made")})
                    self.document.specializationOf(made, entity)
                self.document.wasGeneratedBy(made, self._id("task", task_id))

    def _followed(self, key: str, said: Record) -> Any:
        kind, local = _kind_of(key)
        entity = self._id(kind, local)
        if self._is_new(kind, local):
            described = {name: value for name, value in said.items() if name != "value"}
            label = said.get("path") or said.get("key")
            attributes = {"prov:type": self._name("provd", kind)} | self._label(label)
            self.document.entity(entity, attributes | self._fields(described, frozenset()))
        return entity

    # --- agents ----------------------------------------------------------------------------------------------------

    def _producer(self, producer: Record, user: Any) -> None:
        producer_id = producer["producer_id"]
        attributes = {"prov:type": self._prov("SoftwareAgent")} | self._fields(producer, _PRODUCER_STATED)
        self._agent("producer", producer_id, attributes)
        workflow = self._id("workflow", producer["workflow_id"])
        self.document.wasAssociatedWith(workflow, self._id("producer", producer_id))
        if isinstance(user, str) and user:
            self.document.actedOnBehalfOf(self._id("producer", producer_id), self._id("user", user), workflow)

    def _agent(self, kind: str, local: str, attributes: Mapping[Any, Any]) -> None:
        if self._is_new(kind, local):
            self.document.agent(self._id(kind, local), attributes)

    # --- names and values ------------------------------------------------------------------------------------------

    def _activity(self, kind: str, local: str, record: Record, attributes: Mapping[Any, Any]) -> Any:
        self.known.add((kind, local))
        times = [record.get(field) for field in ("started_at", "ended_at")]
        start, end = (one if isinstance(one, datetime) else None for one in times)
        identifier = self._id(kind, local)
        self.document.activity(identifier, start, end, attributes)
        return identifier

    def _is_new(self, kind: str, local: str) -> bool:
        if (kind, local) in self.known:
            return False
        self.known.add((kind, local))
        return True

    def _fields(self, record: Mapping[Any, Any], without: Iterable[str]) -> dict[Any, Any]:
        return {
            self._name("provd", _key_text(name)): self._literal(value)
            for name, value in record.items()
            if name not in without
        }

    def _label(self, label: Any) -> dict[str, Any]:
        return {"prov:label": label} if is_text(label) and label else {}

    def _id(self, kind: str, local: str) -> Any:
        return self._name(kind, encoded(local))

    def _name(self, prefix: str, local: str) -> Any:
        return self.spaces[prefix][local]

    def _prov(self, local: str) -> Any:
        from prov.constants import PROV

        return PROV[local]

    def _literal(self, value: Any) -> Any:
        """A value as PROV has it."""
        from prov.constants import XSD
        from prov.model import Literal

        kind = type(value)
        if kind is bool:
            return Literal("true" if value else "false", XSD["boolean"])
        if kind is int and value in _INT64:
            return Literal(value, XSD["long"])
        if kind is float:
            return Literal(_double(value), XSD["double"])
        if kind is datetime:
            return Literal(value.isoformat(timespec="milliseconds"), XSD["dateTime"])
        if kind is str and is_text(value):
            return Literal(value, XSD["string"])
        return Literal(values.to_json(value), self._name("provd", "json"))


def _key_text(key: Any) -> str:
    """The name of a value: `~` is the empty one, and `~` and JSON one that is no text."""
    if type(key) is str:
        return encoded(key).replace("~", "%7E") or "~"
    return "~" + encoded(values.to_json(list(key) if isinstance(key, tuple) else key))


def _kind_of(key: str) -> tuple[str, str]:
    kind, _, local = key.partition(":")
    return _KINDS[kind + ":"], local


def _double(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return {math.inf: "INF", -math.inf: "-INF"}.get(value) or repr(value)
