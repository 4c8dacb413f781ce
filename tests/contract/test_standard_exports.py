"""The standard exports say the same of the same run, whichever store has it."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from provd.query.exports import FORMATS, Exported, export_run
from provd.query.tenant import scoped
from provd.store.interface import Store
from tests.builders import ProducerBuilder
from tests.followed_run import followed_run


def _exported(store: Store, format: str) -> bytes:
    stream = io.BytesIO()
    FORMATS[format].load()(Exported(store, "alpha", 60.0), stream)
    return stream.getvalue()


@pytest.mark.parametrize("format", ["prov-json", "prov-n", "openlineage"])
def test_both_stores_give_the_same_bytes(both: tuple[Store, Store], format: str) -> None:
    for store in both:
        followed_run(store)

    one, other = (_exported(store, format) for store in both)

    assert one == other
    assert one == _exported(both[0], format)


def test_both_stores_give_the_same_crate(both: tuple[Store, Store], tmp_path: Path) -> None:
    told = []
    for number, store in enumerate(both):
        followed_run(store)
        path = tmp_path / f"{number}.zip"
        export_run(Exported(store, "alpha", 60.0), path, "ro-crate")
        with zipfile.ZipFile(path) as archive:
            document: dict[str, Any] = json.loads(archive.read("ro-crate-metadata.json"))
        for entity in document["@graph"]:
            if entity["@id"] == "run.jsonl":  # it says when it was made
                del entity["sha256"], entity["contentSize"]
        told.append(document)

    assert told[0] == told[1]


@pytest.mark.parametrize("format", ["prov-json", "openlineage"])
def test_a_tenant_exports_its_own_tasks_alone(both: tuple[Store, Store], format: str) -> None:
    for store in both:
        for tenant in ("ours", "theirs"):
            producer = ProducerBuilder("alpha", f"p-{tenant}").open()
            producer.task(f"of {tenant}", tenant_id=tenant)
            producer.write(store)

        text = _exported(scoped(store, "ours"), format).decode()

        assert "of ours" in text
        assert "theirs" not in text


def test_a_run_of_many_tasks_is_whole_and_in_the_order_of_their_ids(both: tuple[Store, Store]) -> None:
    for store in both:
        for workflow_id in ("alpha", "beta"):
            producer = ProducerBuilder(workflow_id, f"p-{workflow_id}").open()
            for _ in range(1100):
                producer.task()
            producer.write(store)

        events = [json.loads(line) for line in _exported(store, "openlineage").splitlines()]

        ended = [event for event in events if event["eventType"] == "COMPLETE"]
        numbers = [event["run"]["facets"]["provd"]["record"]["seq"] for event in ended]
        assert numbers == list(range(2, 1102))
        assert {event["run"]["facets"]["provd"]["record"]["workflow_id"] for event in ended} == {"alpha"}
