"""`provd export --format openlineage`: valid by the schema, and read by the official client's classes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import jsonschema
from openlineage.client.generated import (
    base,
    dataset_version_dataset,
    error_message_run,
    job_type_job,
    output_statistics_output_dataset,
    parent_run,
    processing_engine_run,
    source_code_location_job,
)

from provd.common import values
from provd.common.record import Status
from provd.query.openlineage import RUN_IDS, run_id
from provd.store.interface import Store
from tests.builders import ProducerBuilder, finished_run
from tests.followed_run import MODEL, TABLE, followed_run
from tests.integration.commands import Provd

_SCHEMA = json.loads((Path(__file__).parents[1] / "schemas" / "openlineage-run-event.json").read_text())

#: The facets that we write, as the official client has them.
_FACETS = {
    facet._get_schema(): facet
    for facet in (
        parent_run.ParentRunFacet,
        error_message_run.ErrorMessageRunFacet,
        processing_engine_run.ProcessingEngineRunFacet,
        job_type_job.JobTypeJobFacet,
        source_code_location_job.SourceCodeLocationJobFacet,
        dataset_version_dataset.DatasetVersionDatasetFacet,
        output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet,
    )
}


def _events(provd: Provd, workflow_id: str = "alpha") -> list[dict[str, Any]]:
    result = provd("export", workflow_id, "--format", "openlineage")
    assert result.exit_code == 0, result.output
    events = [json.loads(line) for line in result.stdout_bytes.splitlines()]
    validator = jsonschema.Draft202012Validator(
        _SCHEMA, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    for event in events:
        validator.validate(event)
        _read(event)
    return events


def _facets(facets: dict[str, Any]) -> dict[str, Any]:
    """The facets as the client's classes, which refuse fields they do not know and lack of those they need."""
    read = {}
    for name, facet in facets.items():
        facts = {key: value for key, value in facet.items() if key not in ("_producer", "_schemaURL")}
        if name == "provd":
            assert set(facts) == {"record"}
            continue
        kind: Any = _FACETS[facet["_schemaURL"]]
        read[name] = kind(producer=facet["_producer"], **facts)
    return read


def _read(event: dict[str, Any]) -> base.RunEvent:
    run, job = event["run"], event["job"]
    inputs = [
        base.InputDataset(one["namespace"], one["name"], facets=_facets(one["facets"]))
        for one in event.get("inputs", [])
    ]
    outputs = [
        base.OutputDataset(
            one["namespace"], one["name"], _facets(one.get("outputFacets", {})), facets=_facets(one["facets"])
        )
        for one in event.get("outputs", [])
    ]
    read = base.RunEvent(
        eventType=base.EventType(event["eventType"]),
        eventTime=event["eventTime"],
        producer=event["producer"],
        run=base.Run(run["runId"], _facets(run["facets"])),
        job=base.Job(job["namespace"], job["name"], _facets(job["facets"])),
        inputs=inputs,
        outputs=outputs,
    )
    assert read.schemaURL == event["schemaURL"]
    return read


def _by_run(events: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    runs: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        runs.setdefault(event["run"]["runId"], []).append(event)
    return runs


def test_the_workflow_and_each_task_start_and_end_once(store: Store, provd: Provd) -> None:
    tasks = followed_run(store)

    runs = _by_run(_events(provd))

    kinds = {run: [event["eventType"] for event in events] for run, events in runs.items()}
    of_task = {name: kinds[run_id("task", task_id)] for name, task_id in tasks.items()}
    assert of_task["train"] == ["START", "COMPLETE"]
    assert of_task["evaluate"] == ["START", "FAIL"]
    assert of_task["sleep"] == ["START"]
    assert kinds[run_id("workflow", "alpha")] == ["START", "COMPLETE"]
    assert len(runs) == len(tasks) + 1
    started, ended = runs[run_id("task", tasks["train"])]
    assert started["eventTime"] == "2026-11-20T14:00:00.300+00:00"
    assert ended["eventTime"] == "2026-11-20T14:00:00.550+00:00"
    assert (ended["job"]["namespace"], ended["job"]["name"]) == ("exp42", "sweep.train")


def test_run_ids_are_made_of_ours(store: Store, provd: Provd) -> None:
    tasks = followed_run(store)

    runs = _by_run(_events(provd))

    namespace = uuid5(NAMESPACE_URL, "urn:provd:openlineage")
    assert namespace == RUN_IDS
    assert str(uuid5(namespace, f"task/{tasks['train']}")) in runs
    assert str(uuid5(namespace, "workflow/alpha")) in runs


def test_a_task_is_within_its_workflow_and_joined_to_others_by_datasets(store: Store, provd: Provd) -> None:
    tasks = followed_run(store)

    runs = _by_run(_events(provd))

    ends = {name: runs[run_id("task", task_id)][-1] for name, task_id in tasks.items()}
    parent = ends["train"]["run"]["facets"]["parent"]
    assert parent["run"]["runId"] == run_id("workflow", "alpha")
    assert parent["job"] == {"namespace": "exp42", "name": "sweep"}

    def datasets(event: dict[str, Any], side: str) -> set[tuple[str, str, str | None]]:
        return {
            (one["namespace"], one["name"], one["facets"].get("version", {}).get("datasetVersion"))
            for one in event[side]
        }

    table, model = ("file", "/data/table.csv", TABLE), ("file", "/data/model.pt", MODEL)
    assert datasets(ends["convert"], "outputs") == {table}
    assert datasets(ends["train"], "inputs") == {table}
    assert datasets(ends["train"], "outputs") == {model, ("provd:campaign/exp42", "state/1", None)}
    assert datasets(ends["evaluate"], "inputs") == {model}
    assert runs[run_id("task", tasks["train"])][0]["outputs"] == []


def test_errors_and_code_have_their_facets(store: Store, provd: Provd) -> None:
    finished_run(store, "alpha")

    events = _events(provd)

    failed = [event for event in events if event["eventType"] == "FAIL"]
    error = failed[0]["run"]["facets"]["errorMessage"]
    assert error["message"] == "ValueError: loss is nan"
    assert error["stackTrace"].startswith("Traceback")
    source = events[-1]["job"]["facets"]["sourceCodeLocation"]
    assert source["url"] == "ssh://host/ada/exp.git"
    assert source["version"] == "0123456789abcdef"


def test_the_whole_record_stands_in_our_facet(store: Store, provd: Provd) -> None:
    producer = ProducerBuilder("alpha", "p1").open()
    odd = {"": float("inf"), "\0": 2**70, "s": "a\udce9", "b": b"\xff", "$where": {"~": None}}
    task_id = producer.task("a\udce9", used=odd)
    producer.write(store)

    events = _by_run(_events(provd))[run_id("task", task_id)]

    record = values.from_json(json.dumps(events[-1]["run"]["facets"]["provd"]["record"]))
    assert record["used"] == odd
    assert events[-1]["job"]["name"] == "alpha.a\ufffd"


def test_a_lost_task_has_no_end(store: Store, provd: Provd) -> None:
    silent = ProducerBuilder("alpha", "p1").open()
    task_id = silent.task(status=Status.RUNNING)
    silent.write(store).beat(store, silent.started_at + 1)

    (event,) = _by_run(_events(provd))[run_id("task", task_id)]

    assert event["eventType"] == "START"
    assert event["run"]["facets"]["provd"]["record"]["status"] == "LOST"


def test_the_schema_would_see_a_broken_event(store: Store, provd: Provd) -> None:
    finished_run(store, "alpha")
    event = _events(provd)[0]
    validator = jsonschema.Draft202012Validator(
        _SCHEMA, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )

    for broken in (
        event | {"eventTime": "yesterday"},
        event | {"run": {"runId": "alpha"}},
        event | {"eventType": "DONE"},
        event | {"job": {"name": "x"}},
        event | {"run": event["run"] | {"facets": {"x": {}}}},
        {key: value for key, value in event.items() if key != "producer"},
    ):
        assert not validator.is_valid(broken)
    assert re.fullmatch(r"urn:provd:[\w.]+", event["producer"])
