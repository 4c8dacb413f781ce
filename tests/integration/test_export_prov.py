"""`provd export --format prov-json` and `prov-n`, read back by the library's parsers and by hand."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from prov.constants import PROV_ACTIVITY, PROV_GENERATION
from prov.model import Literal, ProvDocument, ProvRecord

from provd.common import ids, values
from provd.common.errors import MissingExtra, UsageError
from provd.common.record import Status
from provd.query.exports import Exported
from provd.query.prov_document import TASKS_MAX, export_prov_json, export_prov_n
from provd.query.run_records import check_size
from provd.store.interface import Store
from provd.store.open import open_store
from tests.builders import ProducerBuilder, finished_run
from tests.followed_run import MODEL, RAW, TABLE, followed_run
from tests.integration.commands import Provd
from tests.record_values import canonical, named_values

_FILE = "file:{}%3A%2Fdata%2F{}"


def _pairs(document: dict[str, Any], relation: str, one: str, other: str) -> set[tuple[str, str]]:
    said = document.get(relation, {}).values()
    return {(each[f"prov:{one}"], each[f"prov:{other}"]) for each in said if f"prov:{other}" in each}


def test_prov_json_tells_who_did_what_with_what(store: Store, provd: Provd) -> None:
    tasks = followed_run(store)

    result = provd("export", "alpha", "--format", "prov-json")

    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    train, convert = f"task:{tasks['train']}", f"task:{tasks['convert']}"
    activity = said["activity"][train]
    assert activity["prov:startTime"] == "2026-11-20T14:00:00.300000+00:00"
    assert activity["provd:status"] == "FINISHED"
    assert said["entity"][f"inputs:{tasks['train']}"]["value:lr"] == {"$": "0.1", "type": "xsd:double"}
    assert set(said["agent"]) == {"user:ada", "producer:p1-alpha", "producer:p2-alpha", "agent:tuner"}
    assert said["agent"]["producer:p2-alpha"]["provd:hostname"] == "node02"
    assert said["agent"]["user:ada"]["prov:type"]["$"] == "prov:Person"
    associated = _pairs(said, "wasAssociatedWith", "activity", "agent")
    assert {
        (train, "producer:p1-alpha"),
        (train, "agent:tuner"),
        ("workflow:alpha", "user:ada"),
    } <= associated
    table = _FILE.format(TABLE, "table.csv")
    assert (train, table) in _pairs(said, "used", "activity", "entity")
    assert (table, convert) in _pairs(said, "wasGeneratedBy", "entity", "activity")
    assert said["entity"][_FILE.format(RAW, "raw%20%C3%A9.csv")]["prov:label"] == "/data/raw é.csv"
    assert "prov:endTime" not in said["activity"][f"task:{tasks['sleep']}"]


def test_calls_and_dependencies_are_told_apart(store: Store, provd: Provd) -> None:
    tasks = followed_run(store)

    said = json.loads(provd("export", "alpha", "--format", "prov-json").stdout)

    informed = {
        (each["prov:informed"], each["prov:informant"]): each["prov:type"]["$"]
        for each in said["wasInformedBy"].values()
    }
    train = f"task:{tasks['train']}"
    assert informed == {
        (f"task:{tasks['step']}", train): "provd:call",
        (train, f"task:{tasks['convert']}"): "provd:dependency",
    }
    started = _pairs(said, "wasStartedBy", "activity", "starter")
    assert (train, "workflow:alpha") in started
    assert f"task:{tasks['step']}" not in {activity for activity, _ in started}


def test_a_value_that_two_tasks_made_is_generated_once_by_each(store: Store, provd: Provd) -> None:
    tasks = followed_run(store)

    said = json.loads(provd("export", "alpha", "--format", "prov-json").stdout)

    model = _FILE.format(MODEL, "model.pt")
    generated = Counter(each["prov:entity"] for each in said["wasGeneratedBy"].values())
    assert max(generated.values()) == 1
    assert model not in generated
    special = {
        each["prov:specificEntity"]
        for each in said["specializationOf"].values()
        if each["prov:generalEntity"] == model
    }
    makers = {
        each["prov:activity"] for each in said["wasGeneratedBy"].values() if each["prov:entity"] in special
    }
    assert makers == {f"task:{tasks['train']}", f"task:{tasks['again']}"}
    assert (f"task:{tasks['evaluate']}", model) in _pairs(said, "used", "activity", "entity")


def test_prov_n_and_prov_json_are_one_document(store: Store, provd: Provd, tmp_path: Path) -> None:
    followed_run(store)
    path = tmp_path / "alpha.provn"

    assert provd("export", "alpha", "-o", str(path)).exit_code == 0
    assert provd("export", "alpha", "-o", str(tmp_path / "alpha.prov.json")).exit_code == 0

    as_json = ProvDocument.deserialize(str(tmp_path / "alpha.prov.json"), format="json")
    strict = ProvDocument.deserialize(str(path), format="provn", profile="strict")
    assert strict == as_json
    assert len(as_json.records) > 30
    assert as_json.unified() == as_json


def test_a_task_whose_producer_fell_silent_is_lost(store: Store, provd: Provd) -> None:
    silent = ProducerBuilder("alpha", "p1").open()
    task_id = silent.task(status=Status.RUNNING)
    silent.write(store).beat(store, silent.started_at + 1)

    said = json.loads(provd("export", "alpha", "--format", "prov-json").stdout)

    assert said["activity"][f"task:{task_id}"]["provd:status"] == "LOST"


def _read_value(value: Any) -> Any:
    """A value as an independent reader finds it in a parsed document."""
    if not isinstance(value, Literal):
        return value
    text, kind = value.value, str(value.datatype)
    if kind == "provd:json":
        return values.from_json(text)
    if kind == "xsd:double":
        return {"INF": math.inf, "-INF": -math.inf, "NaN": math.nan}.get(text) or float(text)
    assert kind == "xsd:long"
    return int(text)


def _read_key(local: str) -> Any:
    if local == "~":
        return ""
    if local.startswith("~"):
        return values.as_key(values.from_json(unquote(local[1:])))
    return unquote(local, errors="surrogatepass")


def _read_entity(record: ProvRecord) -> dict[Any, Any]:
    return {
        _read_key(name.localpart): _read_value(value)
        for name, value in record.attributes
        if name.namespace.prefix == "value"
    }


@pytest.mark.parametrize(("export", "format"), [(export_prov_json, "json"), (export_prov_n, "provn")])
def test_values_of_every_kind_read_back(export: Any, format: str, tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'provd.db'}")
    store.migrate()
    odd = {
        "": 1,
        "\0": "\0\x1b",
        "a b": "\udce9",
        "~": 2**70,
        "{": -0.0,
        'q"\\': 'x"""\r\n\\',
        "é:%41": b"\xff",
        "-": [1],
    }

    @settings(max_examples=40, deadline=None, database=None)
    @given(named_values)
    def reads_back(used: dict[Any, Any]) -> None:
        producer = ProducerBuilder(ids.new_workflow_id(), ids.new_producer_id()).open()
        task_id = producer.task(used=used | odd)
        producer.write(store)
        out = BytesIO()

        export(Exported(store, producer.workflow_id, 60.0), out)

        document = ProvDocument.deserialize(content=out.getvalue().decode(), format=format)
        (entity,) = document.get_record(f"inputs:{task_id}")
        read = _read_entity(entity)
        expected = used | odd
        assert {key: canonical(read[key]) for key in expected} == {
            key: canonical(value) for key, value in expected.items()
        }
        assert len(read) == len(expected)

    reads_back()
    store.close()


def test_every_task_is_an_activity_generated_once(store: Store, provd: Provd) -> None:
    finished_run(store, "alpha")

    text = provd("export", "alpha", "--format", "prov-n").stdout

    document = ProvDocument.deserialize(content=text, format="provn")
    kinds = Counter(record.get_type() for record in document.get_records())
    assert kinds[PROV_ACTIVITY] == 6
    assert kinds[PROV_GENERATION] == 4


def test_a_run_that_memory_cannot_hold_is_refused_before_anything_is_read(store: Store) -> None:
    finished_run(store, "alpha")
    run = Exported(store, "alpha", 60.0)

    check_size(run, 5, "prov-json")
    with pytest.raises(UsageError, match=r"alpha has 5 tasks; prov-json is made in memory and ends at 4"):
        check_size(run, 4, "prov-json")
    assert TASKS_MAX == 50_000


def test_without_the_library_the_extra_is_named_and_no_file_is_left(
    store: Store, provd: Provd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished_run(store, "alpha")
    monkeypatch.setitem(sys.modules, "prov.model", None)

    result = provd("export", "alpha", "--output", str(tmp_path / "alpha.provn"))

    assert result.exit_code != 0
    assert not list(tmp_path.glob("*alpha.provn*"))
    with pytest.raises(MissingExtra, match=r'pip install "provd\[export\]"'):
        export_prov_n(Exported(store, "alpha", 60.0), BytesIO())
