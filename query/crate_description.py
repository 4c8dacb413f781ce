"""What an RO-Crate says of a run: its entities, made with the library `rocrate`.

- The run is a `CreateAction`, and so is each task; its instrument is the program, or the activity as a part of it.
- A file that a task declared is a `File` by its place (`file:///…#<state>`): the crate says what it was, and does not
  hold its bytes. Other values are a `PropertyValue` each.
- Nothing here depends on when, where or by whom the crate is made: two stores that hold the same give the same. The
  date of a crate is that of the run.
"""

from __future__ import annotations

import math
import mimetypes
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from provd.common import values
from provd.common.record import ENDED, LOST, Record, Status
from provd.query.run_records import RunRecords, encoded, iso, plain
from provd.store.links import FILE, GENERATED, USED, followed

if TYPE_CHECKING:
    from rocrate.rocrate import ROCrate

PROFILE = "https://w3id.org/ro/wfrun/process/0.5"

#: The file in the crate that is the whole record of the run.
RECORD = "run.jsonl"

#: A term of schema.org that came after the version's context.
_TERMS = {"sha256": "http://schema.org/sha256"}
#: Types of files by their names as Python knows them, whatever the machine's own tables say.
_MEDIA = mimetypes.MimeTypes()
_INT64 = range(-(1 << 63), 1 << 63)
_FAILED = frozenset({Status.ERROR.value, Status.CANCELLED.value, LOST})


class Description:
    """The entities of a crate."""

    def __init__(self, crate: ROCrate, records: RunRecords) -> None:
        """Nothing is said yet."""
        self.crate = crate
        self.records = records
        self.workflow = records.workflow
        self.known: set[str] = set()
        self.parts: list[Mapping[str, str]] = [_ref(RECORD)]
        self.actions: list[Mapping[str, str]] = []
        self.used: dict[str, Mapping[str, str]] = {}
        self.made: dict[str, Mapping[str, str]] = {}
        self.agent: Mapping[str, str] | None = None
        #: What is said of the program and of each of its activities.
        self.source: dict[str, str] = {}
        crate.metadata.extra_terms |= _TERMS

    def describe(self, *, size: int, sha256: str) -> Mapping[str, Any]:
        """Say all of a run, whose record is a file of this size and digest."""
        self.agent = self._agent()
        program = self._program()
        run = f"#workflow/{encoded(self.workflow['workflow_id'])}"
        self.actions.append(_ref(run))
        tasks = 0
        for task in self.records.tasks():
            tasks += 1
            self._task(task, program)
        self._run(run, program)
        self._record(size, sha256)
        self._root()
        return {"tasks": tasks, "files": len(self.parts) - 1, "entities": len(self.crate.get_entities())}

    # --- the whole ---------------------------------------------------------------------------------------------------

    def _root(self) -> None:
        root = self.crate.root_dataset
        moment = self.workflow.get("ended_at") or self.workflow.get("started_at")
        root["name"] = f"Run {plain(self.records.name)}"
        root["description"] = (
            f"What provd recorded of the workflow run {plain(self.workflow['workflow_id'])}."
        )
        root["datePublished"] = iso(moment) if isinstance(moment, datetime) else "1970-01-01"
        root["license"] = "No license was recorded with this run."
        self._add(PROFILE, "CreativeWork", {"name": "Process Run Crate", "version": "0.5"})
        root["conformsTo"] = _ref(PROFILE)
        for term, value in (_some("hasPart", self.parts) | _some("mentions", self.actions)).items():
            root[term] = value
        if self.agent is not None:
            root["author"] = self.agent

    def _record(self, size: int, sha256: str) -> None:
        facts = {
            "name": "The whole record of the run",
            "description": "Tagged JSON lines, for provd import.",
            "encodingFormat": "application/x-ndjson",
            "contentSize": str(size),
            "sha256": sha256,
        }
        self._add(RECORD, "File", facts)

    def _agent(self) -> Mapping[str, str] | None:
        user = self.workflow.get("user")
        if not isinstance(user, str) or not user:
            return None
        return self._add(f"#user/{encoded(user)}", "Person", {"name": plain(user)})

    def _program(self) -> Mapping[str, str]:
        code = self.workflow.get("code")
        if isinstance(code, dict):
            version = code.get("commit") or code.get("sha256")
            url = code.get("repository")
            if isinstance(version, str):
                self.source["softwareVersion"] = plain(version)
            if isinstance(url, str) and url.startswith(("http://", "https://")):
                self.source["url"] = plain(url)
        return self._add("#program", "SoftwareApplication", {"name": plain(self.records.name), **self.source})

    def _run(self, run: str, program: Mapping[str, str]) -> None:
        arguments = list(self._values(f"{run}/args", self.workflow.get("args"), {}))
        read = [reference for key, reference in self.used.items() if key not in self.made]
        facts = self._action(self.workflow, f"Run of {self.records.name}", program)
        made = [_ref(RECORD), *self.made.values()]
        self._add(run, "CreateAction", facts | _some("object", arguments + read) | _some("result", made))

    # --- tasks -------------------------------------------------------------------------------------------------------

    def _task(self, task: Record, program: Mapping[str, str]) -> None:
        activity = task.get("activity_id") or "task"
        instrument = self._activity(activity, program)
        known: dict[str, dict[int, Mapping[str, str]]] = {USED: {}, GENERATED: {}}
        for direction, key, said in followed(task):
            known[direction][id(said)] = self._followed(direction, key, said)
        action = f"#task/{encoded(task['task_id'])}"
        said_by = {
            direction: [
                *known[direction].values(),
                *self._values(f"{action}/{direction}", task.get(direction), known[direction]),
            ]
            for direction in (USED, GENERATED)
        }
        facts = self._action(task, str(activity), instrument)
        self._add(
            action,
            "CreateAction",
            facts | _some("object", said_by[USED]) | _some("result", said_by[GENERATED]),
        )
        self.actions.append(_ref(action))

    def _activity(self, activity: Any, program: Mapping[str, str]) -> Mapping[str, str]:
        identifier = f"#activity/{encoded(str(activity))}"
        if identifier in self.known:
            return _ref(identifier)
        facts = {"name": plain(activity), "isPartOf": program, **self.source}
        return self._add(identifier, "SoftwareApplication", facts)

    def _action(self, record: Record, name: str, instrument: Mapping[str, str]) -> dict[str, Any]:
        facts: dict[str, Any] = {"name": plain(name), "instrument": instrument}
        if self.agent is not None:
            facts["agent"] = self.agent
        for field, term in (("started_at", "startTime"), ("ended_at", "endTime")):
            if isinstance(record.get(field), datetime):
                facts[term] = iso(record[field])
        status = record.get("status")
        where = f" on {record['hostname']}" if record.get("hostname") else ""
        facts["description"] = plain(f"{name}: {status or 'no status'}{where}")
        facts["actionStatus"] = f"http://schema.org/{_action_status(status)}"
        if status in _FAILED:
            facts["error"] = plain(record.get("stderr") or status)
        return facts

    # --- values ------------------------------------------------------------------------------------------------------

    def _followed(self, direction: str, key: str, said: Record) -> Mapping[str, str]:
        if key.startswith(FILE):
            reference = self._file(key, said)
        else:
            name = said.get("key") or said.get("type")
            reference = self._add(
                f"#{encoded(key)}", "PropertyValue", {"name": plain(name), "value": plain(key)}
            )
        (self.used if direction == USED else self.made)[key] = reference
        return reference

    def _file(self, key: str, said: Record) -> Mapping[str, str]:
        path = said["path"]
        state = key.removeprefix(FILE).partition(":")[0]
        place = "/".join(encoded(part) for part in path.lstrip("/").split("/"))
        identifier = f"file:///{place}#{encoded(state)}"
        if identifier not in self.known:
            media_type = _MEDIA.guess_type(path, strict=False)[0] or "application/octet-stream"
            facts: dict[str, Any] = {"name": plain(path), "encodingFormat": media_type}
            if isinstance(said.get("size"), int):
                facts["contentSize"] = str(said["size"])
            if isinstance(said.get("sha256"), str):
                facts["sha256"] = said["sha256"]
            self._add(identifier, "File", facts)
            self.parts.append(_ref(identifier))
        return _ref(identifier)

    def _values(
        self, place: str, said: Any, known: Mapping[int, Mapping[str, str]]
    ) -> Iterator[Mapping[str, str]]:
        if not isinstance(said, dict):
            return
        for number, (key, value) in enumerate(said.items()):
            if id(value) in known:
                continue
            facts = {
                "name": plain(key) if isinstance(key, str) else values.to_json(key),
                "value": _value(value),
            }
            yield self._add(f"{place}/{number}", "PropertyValue", facts)

    def _add(self, identifier: str, kind: str, facts: Mapping[str, Any]) -> Mapping[str, str]:
        if identifier not in self.known:
            from rocrate.model.contextentity import ContextEntity

            self.known.add(identifier)
            self.crate.add(ContextEntity(self.crate, identifier, properties={"@type": kind, **facts}))
        return _ref(identifier)


def _ref(identifier: str) -> Mapping[str, str]:
    return {"@id": identifier}


def _some(term: str, references: list[Mapping[str, str]]) -> dict[str, Any]:
    """A term of one or several; a list of one is that one, as RO-Crate recommends."""
    return {term: references if len(references) > 1 else references[0]} if references else {}


def _action_status(status: Any) -> str:
    if status in _FAILED:
        return "FailedActionStatus"
    if status in ENDED or status == "DEGRADED":
        return "CompletedActionStatus"
    return "ActiveActionStatus" if status == Status.RUNNING.value else "PotentialActionStatus"


def _value(value: Any) -> Any:
    """A value as JSON-LD has it; what it has none for is tagged JSON."""
    if isinstance(value, (bool, str)) or (isinstance(value, int) and value in _INT64):
        return plain(value) if isinstance(value, str) else value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return values.to_json(value)
