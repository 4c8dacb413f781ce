"""A store of each earlier schema version is brought up to date and answers as it did (`tests/golden/README.md`)."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pymongo
import pytest
from bson import json_util
from bson.codec_options import CodecOptions
from typer.testing import CliRunner, Result

from provd.cli.main import app
from provd.common import names, values
from provd.common.errors import StoreError
from provd.common.record import Record
from provd.query.lineage import trace
from provd.store import migrations
from provd.store.books import read_books
from provd.store.interface import Store
from provd.store.open import open_store

GOLDEN = Path(__file__).parents[1] / "golden"
FIRST = {"embedded": 3, "mongodb": 2}
CHANGES = {"embedded": migrations.SQLITE, "mongodb": migrations.MONGO}
#: Since which version a store has links, and deleted runs.
LINKS = {"embedded": 5, "mongodb": 4}
TOMBSTONES = {"embedded": 6, "mongodb": 5}

VERSIONS = [
    (kind, version) for kind, first in FIRST.items() for version in range(first, len(CHANGES[kind]) + 1)
]


def provd(*args: str) -> Result:
    return CliRunner().invoke(app, list(args))


def golden_file(kind: str, version: int) -> Path:
    return GOLDEN / "stores" / f"{kind}-{version}.{'db' if kind == 'embedded' else 'json'}"


@pytest.fixture(params=VERSIONS, ids=lambda found: "-".join(map(str, found)))
def kind_and_version(request: pytest.FixtureRequest) -> tuple[str, int]:
    kind, version = request.param
    made_by = "`python -m tests.golden.make_store` makes it, once"
    assert golden_file(kind, version).exists(), f"version {version} has no golden store: {made_by}"
    return kind, version


@pytest.fixture
def url(kind_and_version: tuple[str, int], request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store as that version left it."""
    kind, version = kind_and_version
    if kind == "embedded":
        copy = shutil.copy(golden_file(kind, version), tmp_path / "provd.db")
        return f"sqlite:///{copy}"
    found: str = request.getfixturevalue("mongo_url")
    load(found, golden_file(kind, version))
    return found


def load(url: str, file: Path) -> None:
    """Fill a database with the documents and the indexes of a file."""
    options = json_util.JSONOptions(
        json_mode=json_util.JSONMode.CANONICAL, tz_aware=True, document_class=dict
    )
    collections = json_util.loads(file.read_text(encoding="utf-8"), json_options=options)
    with pymongo.MongoClient[dict[str, Any]](url) as client:
        database = client.get_default_database()
        for name, had in collections.items():
            collection = database.get_collection(name, codec_options=CodecOptions(tz_aware=True))
            collection.insert_many(had["documents"]) if had["documents"] else database.create_collection(name)
            indexes = [{**index, "key": dict(index["key"])} for index in had["indexes"]]
            if indexes:
                database.command("createIndexes", name, indexes=indexes)


@pytest.fixture
def migrated(url: str) -> Iterator[Store]:
    result = provd("store", "migrate", "--store", url)
    assert result.exit_code == 0, result.stderr
    with closing(open_store(url)) as opened:
        yield opened


def comparable(document: Record) -> str:
    """A document as text in which NaN equals NaN and the order of keys does not matter."""
    return values.to_json(
        {key: document[key] for key in sorted(document) if key not in ("received_at", "size")}
    )


def golden_documents() -> dict[str, list[str]]:
    """What readers make of the golden run, whatever the version."""
    found: dict[str, list[str]] = {}
    for line in (GOLDEN / "schema1" / "documents.jsonl").read_text().splitlines():
        said = values.from_json(line)
        found.setdefault(said["collection"], []).append(comparable(said["document"]))
    return {name: sorted(documents) for name, documents in found.items()}


def of_the_golden_run(store: Store) -> dict[str, list[str]]:
    runs = {"workflow_id": {"$in": ["golden-run", "other-run"]}}
    return {name: sorted(map(comparable, store.find(name, runs))) for name in golden_documents()}


def test_an_earlier_store_answers_as_it_did(kind_and_version: tuple[str, int], migrated: Store) -> None:
    kind, version = kind_and_version

    assert of_the_golden_run(migrated) == golden_documents()
    assert read_books(migrated, "golden-run").complete
    assert sum(times.tasks for times in migrated.task_times("golden-run")) == 5
    assert [mark["name"] for mark in migrated.consumers()] == ["c1"]
    assert migrated.count(names.PRODUCERS, {"campaign_id": "golden-campaign"}) == 1
    if version >= LINKS[kind]:
        assert read_books(migrated, "linked-run").complete
        (last,) = migrated.find(names.TASKS, {"workflow_id": "linked-run", "activity_id": "evaluate"})
        led = trace(migrated, last["task_id"], up=True, down=False, depth=5, limit=10)
        assert [edge.kind for edge in led.edges] == ["value"]
    if version >= TOMBSTONES[kind]:
        assert migrated.deleted_among(["deleted-run", "golden-run"]) == {"deleted-run"}


def test_an_earlier_store_is_the_same_store_afterwards_and_takes_what_comes(
    migrated: Store, kind_and_version: tuple[str, int], tmp_path: Path
) -> None:
    kind, version = kind_and_version
    if kind == "embedded":
        with closing(sqlite3.connect(golden_file(kind, version))) as connection:
            ((text,),) = connection.execute("SELECT document FROM migrations WHERE _id = 'identity'")
        had = json.loads(text)["store_id"]
    else:
        notes = json.loads(golden_file(kind, version).read_text())[names.MIGRATIONS]["documents"]
        (had,) = [note["store_id"] for note in notes if note["_id"] == "identity"]

    assert migrated.identity() == had
    from tests.builders import finished_run

    finished_run(migrated, "new-run")
    assert read_books(migrated, "new-run").complete
    assert of_the_golden_run(migrated) == golden_documents()


def test_what_is_to_be_made_is_told_and_then_made(kind_and_version: tuple[str, int], url: str) -> None:
    kind, version = kind_and_version
    to_be_made = [change.__name__ for change in CHANGES[kind][version:]]

    asked = provd("store", "migrate", "--check", "--json", "--store", url)
    made = provd("store", "migrate", "--json", "--store", url)
    again = provd("store", "migrate", "--check", "--store", url)

    assert json.loads(asked.stdout)["pending"] == to_be_made
    assert asked.exit_code == (1 if to_be_made else 0)
    assert json.loads(made.stdout)["applied"] == to_be_made
    assert (made.exit_code, again.exit_code) == (0, 0)


@pytest.mark.parametrize("kind", ["embedded", "mongodb"])
def test_a_store_of_a_later_version_is_refused_and_left_as_it_is(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    version = len(CHANGES[kind])
    path = tmp_path / "provd.db"
    file = golden_file(kind, version)
    if kind == "embedded":
        shutil.copy(file, path)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"PRAGMA user_version = {version + 1}")
        later = f"sqlite:///{path}"
        before: Any = path.read_bytes()
    else:
        later = request.getfixturevalue("mongo_url")
        load(later, file)
        with pymongo.MongoClient[dict[str, Any]](later) as client:
            client.get_default_database()[names.MIGRATIONS].insert_one({"_id": "m999_later"})
        before = everything(later)

    for command in (
        ("store", "migrate"),
        ("store", "migrate", "--check"),
        ("store", "stats"),
        ("store", "compact"),
        ("backup", "b"),
        ("runs", "tail"),
    ):
        result = provd(*command, "--store", later)
        assert result.exit_code == 1, command
        assert "later provd" in result.stderr
        assert "upgrade" in result.stderr
    with closing(open_store(later)) as opened, pytest.raises(StoreError, match="upgrade"):
        opened.migrate()

    assert (path.read_bytes() if kind == "embedded" else everything(later)) == before


def everything(url: str) -> dict[str, Any]:
    with pymongo.MongoClient[dict[str, Any]](url) as client:
        database = client.get_default_database()
        return {
            name: repr((list(database[name].find()), database[name].index_information()))
            for name in sorted(database.list_collection_names())
        }
