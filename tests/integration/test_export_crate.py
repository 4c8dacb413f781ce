"""`provd export --format ro-crate`: valid by the profile's own checks, and read back by other readers."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from rdflib import Graph
from rocrate.rocrate import ROCrate

from provd.common import names
from provd.common.errors import MissingExtra
from provd.common.record import Status
from provd.query.exports import Exported, export_run
from provd.store.interface import Store
from provd.store.open import open_store
from tests.builders import ProducerBuilder, finished_run
from tests.followed_run import MODEL, followed_run
from tests.integration.commands import Provd
from tests.services.crate_validator import CONTEXT, complaints

_MODEL = f"file:///data/model.pt#{MODEL}"


def _crate(store: Store, tmp_path: Path, workflow_id: str = "alpha") -> Path:
    path = tmp_path / "exports" / f"{workflow_id}.zip"
    path.parent.mkdir()
    export_run(Exported(store, workflow_id, 60.0), path, "ro-crate")
    assert os.listdir(path.parent) == [path.name]
    return path


def _metadata(path: Path) -> dict[str, dict[str, Any]]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        document = json.loads(archive.read("ro-crate-metadata.json"))
    return {entity["@id"]: entity for entity in document["@graph"]}


@pytest.mark.parametrize("make", [followed_run, finished_run])
def test_a_crate_keeps_the_process_run_profile(store: Store, tmp_path: Path, make: Any) -> None:
    make(store, "alpha")

    path = _crate(store, tmp_path)

    assert complaints(path, tmp_path / "cache", profile="process-run-crate") == []


def test_the_validator_would_see_a_broken_crate(store: Store, tmp_path: Path) -> None:
    finished_run(store, "alpha")
    path = _crate(store, tmp_path)
    broken = tmp_path / "broken"
    with zipfile.ZipFile(path) as archive:
        archive.extractall(broken)
    metadata = broken / "ro-crate-metadata.json"
    metadata.write_text(metadata.read_text().replace('"instrument"', '"tool"'))

    found = complaints(broken, tmp_path / "cache", profile="process-run-crate")

    assert any("MUST have an instrument" in complaint for complaint in found)


def test_each_task_is_an_action_with_its_instrument_inputs_and_results(
    store: Store, provd: Provd, tmp_path: Path
) -> None:
    tasks = followed_run(store)
    path = tmp_path / "alpha.crate.zip"

    told = json.loads(provd("export", "alpha", "--output", str(path), "--json").stdout)

    assert (told["format"], told["tasks"], told["files"]) == ("ro-crate", 6, 3)
    crate: Any = ROCrate(str(path))
    train = crate.get(f"#task/{tasks['train']}")
    assert train.type == "CreateAction"
    assert (train["instrument"].id, train["instrument"]["name"]) == ("#activity/train", "train")
    assert (train["agent"].id, train["agent"]["name"]) == ("#user/ada", "ada")
    assert train["startTime"] == "2026-11-20T14:00:00.300+00:00"
    objects = {one["name"]: one for one in train["object"]}
    assert objects["/data/table.csv"].type == "File"
    assert objects["lr"]["value"] == 0.1
    assert {one["name"] for one in train["result"]} == {"/data/model.pt", "state/1", "app.Net"}
    assert crate.get(f"#task/{tasks['again']}")["result"] is not None
    failed = crate.get(f"#task/{tasks['evaluate']}")
    assert failed["actionStatus"] == "http://schema.org/FailedActionStatus"
    assert failed["error"] == "ValueError: nan"
    run = crate.get("#workflow/alpha")
    assert {one.id for one in run["object"]} >= {f"file:///data/raw%20%C3%A9.csv#{'a' * 64}"}
    assert crate.root_dataset["conformsTo"].id == "https://w3id.org/ro/wfrun/process/0.5"


@pytest.mark.filterwarnings("ignore:ConjunctiveGraph:DeprecationWarning")  # rdflib's own
def test_a_crate_is_linked_data_that_tells_who_used_what_another_made(store: Store, tmp_path: Path) -> None:
    tasks = followed_run(store)
    with zipfile.ZipFile(_crate(store, tmp_path)) as archive:
        document = json.loads(archive.read("ro-crate-metadata.json"))
    document["@context"] = [json.loads(CONTEXT.read_text())["@context"], document["@context"][1]]

    graph = Graph().parse(data=json.dumps(document), format="json-ld", publicID="https://crate.example/")

    flows = graph.query(
        """PREFIX s: <http://schema.org/>
        SELECT ?made ?file ?used WHERE { ?made s:result ?file . ?used s:object ?file . ?file a s:MediaObject }"""
    )
    found = {tuple(str(term).rpartition("#")[2] for term in row) for row in flows}  # type: ignore[union-attr]
    task = {name: f"task/{task_id}" for name, task_id in tasks.items()}
    assert {(task["train"], MODEL, task["evaluate"]), (task["again"], MODEL, task["evaluate"])} <= found
    assert (task["convert"], "b" * 64, task["train"]) in found


def test_the_record_in_a_crate_brings_the_run_into_another_store(
    store: Store, provd: Provd, tmp_path: Path
) -> None:
    finished_run(store, "alpha")
    path = _crate(store, tmp_path)
    told = _metadata(path)["run.jsonl"]
    with zipfile.ZipFile(path) as archive:
        archive.extract("run.jsonl", tmp_path)
    record = (tmp_path / "run.jsonl").read_bytes()
    assert (told["contentSize"], told["sha256"]) == (str(len(record)), hashlib.sha256(record).hexdigest())

    copy = f"sqlite:///{tmp_path / 'copy.db'}"
    result = provd("import", str(tmp_path / "run.jsonl"), "--store", copy)

    assert result.exit_code == 0, result.output
    with_copy = open_store(copy)
    assert with_copy.count(names.TASKS, {"workflow_id": "alpha"}) == 5
    with_copy.close()


def test_values_that_json_has_no_word_for_are_tagged_and_text_is_readable(
    store: Store, tmp_path: Path
) -> None:
    producer = ProducerBuilder("alpha", "p1").open()
    odd = {
        "": float("nan"),
        "\0": 2**70,
        "s": "a\udce9\0",
        "b": b"\xff",
        "n": None,
        "big": 2**63 - 1,
        "d": {"x": [1]},
    }
    task_id = producer.task("a\0b", Status.FINISHED, used=odd)
    producer.write(store)

    path = _crate(store, tmp_path)

    entities = _metadata(path)
    read = {
        entity["name"]: entity["value"]
        for key, entity in entities.items()
        if key.startswith(f"#task/{task_id}/used/")
    }
    assert read == {
        "": '{"$numberDouble":"NaN"}',
        "\ufffd": '{"~int":"0x400000000000000000"}',
        "s": "a\ufffd\ufffd",
        "b": '{"$binary":{"base64":"/w==","subType":"00"}}',
        "n": "null",
        "big": 2**63 - 1,
        "d": '{"x":[1]}',
    }
    assert complaints(path, tmp_path / "cache", profile="process-run-crate") == []


def test_a_crate_without_the_library_names_the_extra_and_leaves_no_file(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished_run(store, "alpha")
    monkeypatch.setitem(sys.modules, "rocrate.rocrate", None)

    with pytest.raises(MissingExtra, match=r'pip install "provd\[export\]"'):
        export_run(Exported(store, "alpha", 60.0), tmp_path / "alpha.zip", "ro-crate")
    assert not list(tmp_path.glob("*alpha*"))


def test_a_crate_needs_a_file(store: Store, provd: Provd) -> None:
    finished_run(store, "alpha")

    result = provd("export", "alpha", "--format", "ro-crate")

    assert result.exit_code == 2 or "ro-crate needs a file" in str(result.exception)
