"""A run as OpenLineage events, JSON lines: the workflow is a run, and so is each task, within it.

- Each event is complete in itself, and is written as its task goes by, so that a run of any size can be exported.
- A run has one `START`, and one of `COMPLETE`, `FAIL` and `ABORT` when it has ended. One that runs, or is lost, has
  none, for nobody knows its end.
- Run ids must be UUIDs: each is `uuid5(RUN_IDS, "workflow/<id>")` or `uuid5(RUN_IDS, "task/<id>")`, so that the same
  record gives the same run, from any store and at any time.
- Datasets are the files and declared keys that a task used and generated. What lives in a process' memory is none.
- What OpenLineage has no field for stands in the facet `provd`, as tagged JSON (`provd.common.values`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, BinaryIO
from uuid import UUID, uuid5

from provd.common import values
from provd.common.record import Record, Status
from provd.query.run_records import RunRecords, iso, plain, read_records
from provd.store.links import FILE, KEY, USED, followed

if TYPE_CHECKING:
    from provd.query.exports import Exported

#: The namespace of run ids: `uuid5(NAMESPACE_URL, "urn:provd:openlineage")`.
RUN_IDS = UUID("1c8f649d-9c27-50e8-96a2-19686fd47694")

_VERSION = version("provd")
PRODUCER = f"urn:provd:{_VERSION}"

_SPEC = "https://openlineage.io/spec"
_SCHEMA_URL = f"{_SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent"
_FACET_VERSIONS = {
    "ParentRunFacet": "1-2-0",
    "ErrorMessageRunFacet": "1-0-1",
    "ProcessingEngineRunFacet": "1-1-1",
    "JobTypeJobFacet": "2-0-4",
    "SourceCodeLocationJobFacet": "1-1-0",
    "DatasetVersionDatasetFacet": "1-0-1",
    "OutputStatisticsOutputDatasetFacet": "1-0-2",
}
#: The facet that holds our record: no schema of it is published.
_OWN_FACET = "urn:provd:facets:record:1"

_ENDS = {
    Status.FINISHED.value: "COMPLETE",
    "DEGRADED": "COMPLETE",
    Status.ERROR.value: "FAIL",
    Status.CANCELLED.value: "ABORT",
    Status.SKIPPED.value: "ABORT",
}
_URL = re.compile(r"(?:https?|ssh|git)://[!-~]+")

#: What stands elsewhere in an event.
_STATED = frozenset({"workflow_id", "task_id"})
_EARLIEST = datetime.fromisoformat("1970-01-01T00:00:00.000+00:00")


def export_openlineage(run: Exported, stream: BinaryIO) -> Mapping[str, Any]:
    """The run as OpenLineage events, one a line."""
    told = {"tasks": 0, "events": 0}
    writer = _Events(read_records(run))
    for event in writer.of_workflow("START"):
        told["events"] += _write(event, stream)
    for task in writer.records.tasks():
        told["tasks"] += 1
        for event in writer.of_task(task):
            told["events"] += _write(event, stream)
    for event in writer.of_workflow(_ENDS.get(str(writer.workflow.get("status")))):
        told["events"] += _write(event, stream)
    return told


def _write(event: Record, stream: BinaryIO) -> int:
    stream.write(values.to_json(event).encode() + b"\n")
    return 1


def run_id(kind: str, identifier: str) -> str:
    """The UUID of a workflow or a task."""
    return str(uuid5(RUN_IDS, f"{kind}/{plain(identifier)}"))


class _Events:
    def __init__(self, records: RunRecords) -> None:
        self.records = records
        self.workflow = records.workflow
        self.namespace = plain(self.workflow.get("campaign_id") or "provd")
        self.name = plain(records.name)
        self.run_id = run_id("workflow", self.workflow["workflow_id"])

    def of_workflow(self, kind: str | None) -> Iterator[Record]:
        """The event of this kind about the workflow."""
        if kind is None:
            return
        engine = _facet("ProcessingEngineRunFacet", version=_VERSION, name="provd")
        facets = {"processing_engine": engine} | _error(self.workflow, kind)
        facets["provd"] = _own(self.workflow)
        job_facets = {"jobType": _job_type("WORKFLOW")} | _source(self.workflow.get("code"))
        yield self._event(kind, self.workflow, self.run_id, facets, self.name, job_facets)

    def of_task(self, task: Record) -> Iterator[Record]:
        """The events about a task: that it started, and how it ended."""
        activity = plain(task.get("activity_id") or "task")
        root = {"run": {"runId": self.run_id}, "job": {"namespace": self.namespace, "name": self.name}}
        of_this = run_id("task", task["task_id"])
        job_facets = {"jobType": _job_type("TASK")}
        inputs, outputs = _datasets(task)
        end = _ENDS.get(str(task.get("status")))
        for kind in ("START", end) if end else ("START",):
            facets = {"parent": _facet("ParentRunFacet", **root)} | _error(task, kind)
            ends = kind == end or end is None
            if ends:
                facets["provd"] = _own(task)
            event = self._event(kind, task, of_this, facets, f"{self.name}.{activity}", job_facets)
            event["inputs"] = inputs
            event["outputs"] = outputs if ends else []
            yield event

    def _event(
        self, kind: str, record: Record, of_run: str, facets: Record, name: str, job_facets: Record
    ) -> Record:
        return {
            "eventType": kind,
            "eventTime": iso(self._moment(record, starts=kind == "START")),
            "run": {"runId": of_run, "facets": facets},
            "job": {"namespace": self.namespace, "name": name, "facets": job_facets},
            "producer": PRODUCER,
            "schemaURL": _SCHEMA_URL,
        }

    def _moment(self, record: Record, *, starts: bool) -> datetime:
        """When it started or ended; the nearest thing to it that is known."""
        order = (
            ("started_at", "submitted_at", "ended_at")
            if starts
            else ("ended_at", "started_at", "submitted_at")
        )
        known = [record.get(field) for field in order] + [self.workflow.get("started_at")]
        return next((moment for moment in known if isinstance(moment, datetime)), _EARLIEST)


def _datasets(task: Record) -> tuple[list[Record], list[Record]]:
    inputs: list[Record] = []
    outputs: list[Record] = []
    for direction, key, said in followed(task):
        dataset = _dataset(key, said)
        if dataset is None:
            continue
        if direction == USED:
            inputs.append(dataset)
            continue
        if isinstance(said.get("size"), int) and key.startswith(FILE):
            statistics = _facet("OutputStatisticsOutputDatasetFacet", size=said["size"], fileCount=1)
            dataset["outputFacets"] = {"outputStatistics": statistics}
        outputs.append(dataset)
    return inputs, outputs


def _dataset(key: str, said: Record) -> Record | None:
    if key.startswith(FILE):
        state = _facet("DatasetVersionDatasetFacet", datasetVersion=key.removeprefix(FILE).partition(":")[0])
        return {"namespace": "file", "name": plain(said["path"]), "facets": {"version": state}}
    if key.startswith(KEY):
        scope = key.removeprefix(KEY).partition(":")[0]
        return {"namespace": f"provd:{plain(scope)}", "name": plain(said["key"]), "facets": {}}
    return None


def _error(record: Record, kind: str) -> Record:
    if kind not in ("FAIL", "ABORT") or not (record.get("stderr") or record.get("traceback")):
        return {}
    message = plain(record.get("stderr") or record.get("status"))
    trace = record.get("traceback")
    more = {"stackTrace": plain(trace)} if isinstance(trace, str) else {}
    facet = _facet("ErrorMessageRunFacet", message=message, programmingLanguage="python", **more)
    return {"errorMessage": facet}


def _source(code: Any) -> Record:
    """Where the program's text is, when that can be said by a URL."""
    if not isinstance(code, dict) or not isinstance(code.get("repository"), str):
        return {}
    repository = plain(code["repository"])
    url = repository if _URL.fullmatch(repository) else None
    if url is None and (short := re.fullmatch(r"(?:[!-~]+@)?([\w.-]+):([!-~]+)", repository)):
        url = f"ssh://{short[1]}/{short[2]}"
    if url is None:
        return {}
    names = {"commit": "version", "branch": "branch", "file": "path"}
    more = {term: plain(code[name]) for name, term in names.items() if isinstance(code.get(name), str)}
    facet = _facet("SourceCodeLocationJobFacet", type="git", url=url, repoUrl=repository, **more)
    return {"sourceCodeLocation": facet}


def _job_type(kind: str) -> Record:
    return _facet("JobTypeJobFacet", processingType="BATCH", integration="PROVD", jobType=kind)


def _facet(facet: str, **facts: Any) -> Record:
    url = f"{_SPEC}/facets/{_FACET_VERSIONS[facet]}/{facet}.json#/$defs/{facet}"
    return {"_producer": PRODUCER, "_schemaURL": url, **facts}


def _own(record: Record) -> Record:
    return {"_producer": PRODUCER, "_schemaURL": _OWN_FACET, "record": record}
