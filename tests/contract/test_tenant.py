"""One tenant's view of a store: nothing of another's is in any answer, by any command or stage."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from provd.cli.main import app
from provd.common import clock, names, values
from provd.common.errors import ProvdError, StoreError, UnsupportedQuery
from provd.common.record import Status
from provd.query.readonly import STAGES
from provd.query.tenant import scoped
from provd.store.books import read_books
from provd.store.interface import ConsumerMark, Quarantined, Store
from provd.store.open import open_store
from tests.builders import START_MS, ProducerBuilder

#: Stands in everything that is the other tenant's, and in nothing of ours.
SECRET = "zeta"
COLLECTIONS = (names.TASKS, names.WORKFLOWS, names.PRODUCERS, names.LEDGER, names.BEATS, names.SAMPLES, names.QUARANTINE, names.LINKS)  # fmt: skip


def _run(store: Store, workflow_id: str, producer: str, tenant: str | None, word: str) -> ProducerBuilder:
    part = ProducerBuilder(workflow_id, producer, f"c-{word}", hostname=f"host-{word}").open()
    part.workflow(Status.RUNNING, name=f"name-{word}")
    for number in range(3):
        used = {
            "shared": 1,
            "word": word,
            "file": {"type": "provd.File", "path": f"/{word}", "size": 1, "sha256": "0" * 64},
        }
        part.task(f"do-{word}", Status.ERROR if number == 2 else Status.FINISHED, used=used, stderr=f"oh {word}",
                  parent_task_id="root-1", tags=[word])  # fmt: skip
    part.workflow(name=f"name-{word}").close()
    for message in part.messages:
        if tenant is not None:
            message.record["tenant_id"] = tenant
    part.write(store).beat(store, START_MS + 1000)
    store.add_quarantined(
        [Quarantined(f"bad {word}", word.encode(), f"s:{word}", "1-1", producer, workflow_id, 90, 90)]
    )
    return part


def _fill(store: Store) -> None:
    store.migrate()
    _run(store, "run-alpha", "p-alpha", "ours", "alpha")
    _run(store, f"run-{SECRET}", f"p-{SECRET}", "theirs", SECRET)
    _run(store, f"run-{SECRET}-none", f"p-{SECRET}-none", None, SECRET)
    # A run that both have joined
    _run(store, "run-both", "p-both-alpha", "ours", "alpha")
    other = ProducerBuilder("run-both", f"p-both-{SECRET}", hostname=f"host-{SECRET}").open()
    other.task(f"do-{SECRET}", used={"word": SECRET})
    for message in other.messages:
        message.record["tenant_id"] = "theirs"
    other.write(store).beat(store, START_MS + 2000)
    store.put_consumer(
        ConsumerMark(f"consumer-{SECRET}", f"host-{SECRET}", 1, "1", "running", START_MS, START_MS,
                     ("run-alpha", f"run-{SECRET}"), {f"rate-{SECRET}": 1})
    )  # fmt: skip


@pytest.fixture(scope="module", params=["mongodb", "embedded"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A store with two tenants' runs, one of nobody's and one that both joined."""
    database = f"provd_tenant_{uuid.uuid4().hex[:12]}"
    if request.param == "embedded":
        address = f"sqlite:///{tmp_path_factory.mktemp('tenant') / 'provd.db'}"
    else:
        address = f"{request.getfixturevalue('mongo_server_url').rstrip('/')}/{database}"
    store = open_store(address)
    _fill(store)
    yield address
    if request.param == "mongodb":
        store._client.drop_database(database)  # type: ignore[attr-defined]
    store.close()


@pytest.fixture
def whole(url: str) -> Iterator[Store]:
    """All of it."""
    store = open_store(url)
    yield store
    store.close()


@pytest.fixture
def ours(whole: Store) -> Store:
    """What our tenant sees."""
    return scoped(whole, "ours")


def text_of(found: Any) -> str:
    """Everything in an answer, as text; bytes as they are."""
    return repr(found) + values.to_json(found if isinstance(found, (dict, list)) else [])


# --- the store -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("collection", COLLECTIONS)
@pytest.mark.parametrize(
    "filter",
    [
        {},
        {"workflow_id": "run-alpha"},
        {"workflow_id": f"run-{SECRET}"},
        {"workflow_id": {"$in": ["run-both", f"run-{SECRET}", "run-alpha"]}},
        {"$and": [{"workflow_id": f"run-{SECRET}"}]},
        {
            "$or": [
                {"tenant_id": "theirs"},
                {"tenant_id": {"$ne": "ours"}},
                {"workflow_id": {"$exists": True}},
            ]
        },
        {"$nor": [{"workflow_id": "x"}]},
        {"tenant_id": "theirs"},
        {"tenant_id": {"$exists": False}},
        {"$at": [["used", "word"], {"$eq": SECRET}]},
    ],
    ids=repr,
)
def test_no_filter_finds_what_is_not_ours(
    ours: Store, whole: Store, collection: str, filter: dict[str, Any]
) -> None:
    found = list(ours.find(collection, filter, sort=[("_id", 1)]))

    assert SECRET not in text_of(found)
    assert ours.count(collection, filter) == len(found)
    assert sum(ours.count_by(collection, filter, ("workflow_id", "producer_id")).values()) == len(found)
    assert SECRET not in repr(ours.count_by(collection, filter, ("workflow_id", "producer_id", "hostname")))


@pytest.mark.parametrize("collection", [name for name in COLLECTIONS if name != names.SAMPLES])
def test_what_is_ours_is_all_there(ours: Store, whole: Store, collection: str) -> None:
    everything = [document for document in whole.find(collection, {}) if SECRET not in text_of(document)]

    found = list(ours.find(collection, {}))

    assert len(found) == len(everything)
    assert found or collection == names.LINKS


_LOOKUPS: list[dict[str, Any]] = [
    {"$lookup": {"from": "tasks", "as": "x", "pipeline": []}},
    {"$lookup": {"from": "tasks", "as": "x", "let": {"w": 1}, "pipeline": [{"$match": {"tenant_id": "theirs"}}]}},
    {"$lookup": {"from": "tasks", "localField": "used.shared", "foreignField": "used.shared", "as": "x"}},
    {"$lookup": {"from": "ledger", "as": "x", "pipeline": []}},
    {"$lookup": {"from": "beats", "as": "x", "pipeline": []}},
    {"$lookup": {"from": "quarantine", "as": "x", "pipeline": []}},
    {"$lookup": {"from": "links", "as": "x", "pipeline": []}},
    {"$lookup": {"from": "workflows", "as": "x", "pipeline": [{"$lookup": {"from": "producers", "as": "y", "pipeline": [{"$unionWith": "tasks"}]}}]}},
    {"$unionWith": "tasks"},
    {"$unionWith": {"coll": "producers"}},
    {"$unionWith": {"coll": "beats", "pipeline": [{"$match": {}}]}},
    {"$unionWith": {"coll": "workflows", "pipeline": [{"$unionWith": {"coll": "tasks", "pipeline": [{"$lookup": {"from": "tasks", "as": "z", "pipeline": []}}]}}]}},
    {"$facet": {"a": [{"$unionWith": "tasks"}], "b": [{"$lookup": {"from": "ledger", "as": "x", "pipeline": []}}]}},
    {"$graphLookup": {"from": "tasks", "startWith": "$parent_task_id", "connectFromField": "parent_task_id", "connectToField": "parent_task_id", "as": "x"}},
    {"$graphLookup": {"from": "tasks", "startWith": "$parent_task_id", "connectFromField": "parent_task_id", "connectToField": "parent_task_id", "as": "x", "restrictSearchWithMatch": {"$or": [{}, {"tenant_id": "theirs"}]}}},
    {"$graphLookup": {"from": "beats", "startWith": "$workflow_id", "connectFromField": "workflow_id", "connectToField": "workflow_id", "as": "x"}},
]  # fmt: skip


@pytest.mark.parametrize("collection", [names.TASKS, names.WORKFLOWS, names.LEDGER, names.QUARANTINE])
@pytest.mark.parametrize("stage", _LOOKUPS, ids=repr)
def test_no_stage_reads_what_is_not_ours(
    ours: Store, url: str, collection: str, stage: dict[str, Any]
) -> None:
    for pipeline in (
        [stage],
        [{"$match": {}}, stage],
        [{"$limit": 5}, stage],
        [{"$facet": {"f": [{"$limit": 1}]}}, stage],
    ):
        try:
            found = list(ours.aggregate(collection, pipeline))
        except UnsupportedQuery:
            if url.startswith("mongodb") and "$facet" not in repr(stage):
                raise
            continue
        assert SECRET not in text_of(found)


def test_every_stage_that_reads_a_collection_is_known_to_the_restriction() -> None:
    """A stage that the allowlist takes and that names a collection must be rewritten: none may be added unseen."""
    assert {"$lookup", "$graphLookup", "$unionWith", "$facet"} <= STAGES
    plain = STAGES - {"$lookup", "$graphLookup", "$unionWith", "$facet"}
    assert plain == {
        "$match", "$project", "$addFields", "$set", "$unset", "$group", "$sort", "$limit", "$skip", "$count", "$unwind",
        "$replaceRoot", "$replaceWith", "$sortByCount", "$bucket", "$bucketAuto", "$sample", "$redact",
        "$setWindowFields", "$densify", "$fill",
    }  # fmt: skip


def test_groups_and_counts_see_ours_alone(ours: Store) -> None:
    pipeline = [{"$group": {"_id": "$hostname", "n": {"$sum": 1}}}]

    assert list(ours.aggregate("tasks", pipeline)) == [{"_id": "host-alpha", "n": 6}]
    assert list(ours.aggregate("ledger", [{"$count": "n"}])) == [{"n": 2}]


@pytest.mark.parametrize("collection", ["consumers", "migrations"])
def test_what_is_nobodys_is_refused(ours: Store, collection: str) -> None:
    asks: Sequence[Callable[[], Any]] = (
        lambda: list(ours.find(collection, {})),
        lambda: ours.count(collection, {}),
        lambda: list(ours.aggregate(collection, [])),
        lambda: list(ours.aggregate("tasks", [{"$unionWith": collection}])),
        lambda: list(ours.aggregate("tasks", [{"$lookup": {"from": collection, "as": "x", "pipeline": []}}])),
    )
    for ask in asks:
        with pytest.raises(UnsupportedQuery):
            ask()


@pytest.mark.parametrize("stage", ["$out", "$merge", "$where", "$documents", "$currentOp", "$collStats"])
def test_a_stage_that_nobody_restricts_is_refused(ours: Store, stage: str) -> None:
    with pytest.raises(UnsupportedQuery):
        list(ours.aggregate("tasks", [{stage: {}}]))


def test_the_books_are_those_of_ours(ours: Store, whole: Store) -> None:
    assert read_books(ours, "run-alpha") == read_books(whole, "run-alpha")
    assert read_books(ours, f"run-{SECRET}").producers == ()
    assert [part.producer_id for part in read_books(ours, "run-both").producers] == ["p-both-alpha"]
    assert set(ours.stored_ranges("run-both")) == {"p-both-alpha"}
    assert list(ours.task_times(f"run-{SECRET}")) == []
    assert SECRET not in repr(list(ours.task_times("run-both")))
    assert sum(times.tasks for times in ours.task_times("run-alpha")) == 3


def test_consumers_are_told_without_what_is_theirs(ours: Store) -> None:
    (mark,) = ours.consumers()

    assert SECRET not in text_of([mark])
    assert mark["workflow_ids"] == ["run-alpha"]


def test_nothing_is_changed_through_a_tenant(ours: Store, whole: Store) -> None:
    (piece,) = whole.find(names.QUARANTINE, {"workflow_id": f"run-{SECRET}"}, fields=["_id"])

    ours.drop_quarantined([piece["_id"]])
    ours.note_quarantined(piece["_id"], "mine now")

    (left,) = whole.find(names.QUARANTINE, {"workflow_id": f"run-{SECRET}"})
    assert left["reason"] == f"bad {SECRET}"
    for change in (ours.migrate, lambda: ours.compact_ledger("run-alpha"), lambda: ours.put_beats([])):
        with pytest.raises(StoreError):
            change()


def test_every_method_of_a_store_is_decided_upon(ours: Store) -> None:
    """A method that a later version adds is not handed through unseen."""
    methods = {name for name in vars(Store) if not name.startswith("_")}

    assert methods <= set(dir(ours))


# --- the commands ----------------------------------------------------------------------------------------------


def _commands(tmp_path: Path) -> list[list[str]]:
    theirs = f"run-{SECRET}"
    queries = [["query", name, "{}"] for name in COLLECTIONS] + [["query", "consumers", "{}"]]
    queries += [["query", name, "{}", "--json", "-n", "0"] for name in COLLECTIONS]
    asked = [["query", "workflows", "--pipeline", values.to_json([stage]), "--json"] for stage in _LOOKUPS]
    runs = [["runs", what, text, *form] for what in ("show", "verify") for form in ([], ["--json"])
            for text in ("last", "run-alpha", "run-both", "run-", "run", theirs, theirs[:6], f"name-{SECRET}", f"run-{SECRET[:3]}x", "nam")]  # fmt: skip
    return [
        ["runs", "tail"], ["runs", "tail", "--json"], ["runs", "tail", "--status", "FINISHED", "--since", "9999d", "--json"],
        ["runs", "tail", "-c", f"c-{SECRET}", "--json"],
        *runs,
        ["tasks"], ["tasks", "--json", "-n", "0"], ["tasks", "-w", theirs, "--json"], ["tasks", "-w", "run-both", "--json"],
        ["tasks", "--where", f"used.word = '{SECRET}'", "--json"], ["tasks", "--where", "tenant_id = 'theirs'", "--json"],
        ["tasks", "--status", "LOST", "--json"], ["tasks", "--format", "csv"], ["tasks", "--host", f"host-{SECRET}", "--json"],
        ["tasks", "--output", str(tmp_path / "out.json")],
        *queries, *asked,
        ["quarantine", "list"], ["quarantine", "list", "--json"], ["quarantine", "list", "-w", theirs, "--json"],
        *(["lineage", f"p-{word}-0000000{number}", "--json"] for word in ("alpha", "both-alpha", SECRET) for number in (2, 3, 4)),
        *(["export", run, "--format", "jsonl", "-o", str(tmp_path / "run.jsonl")] for run in ("run-both", theirs, "run-alpha")),
        ["status", "--json"], ["status"], ["status", "-w", theirs, "--json"],
    ]  # fmt: skip


def test_no_command_shows_what_is_not_ours(
    url: str, redis_url: str, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "PROVD_STORE_URL": url, "PROVD_BROKER_URL": redis_url, "PROVD_NAMESPACE": namespace, "PROVD_TENANT_ID": "ours", "COLUMNS": "300",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)

    for arguments in _commands(tmp_path):
        result = CliRunner().invoke(app, arguments)

        assert result.exception is None or isinstance(result.exception, (SystemExit, ProvdError)), arguments
        said = result.stdout + result.stderr
        for told in arguments:  # what was asked may be said again
            said = said.replace(told, "")
        assert SECRET not in said, arguments
        assert not any(SECRET in file.read_text() for file in tmp_path.glob("*.json*")), arguments


def test_streams_of_others_are_not_in_the_status(
    url: str, redis_url: str, namespace: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from provd.common.names import WorkflowKeys

    for workflow_id in ("run-alpha", f"run-{SECRET}", "unheard-of"):
        keys = WorkflowKeys.of(namespace, 16, workflow_id, None)
        client.sadd(keys.registry, keys.stream)
        client.xadd(keys.stream, {"h": "x", "b": "y"}, id=f"{clock.now_ms()}-0")
    for name, value in {
        "PROVD_STORE_URL": url, "PROVD_BROKER_URL": redis_url, "PROVD_NAMESPACE": namespace, "PROVD_TENANT_ID": "ours",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)

    result = CliRunner().invoke(app, ["status", "--json"])

    assert "run-alpha" in result.stdout
    assert SECRET not in result.stdout
    assert "unheard-of" not in result.stdout
    monkeypatch.setenv("PROVD_TENANT_ID", "nobody")
    assert '"workflows":[]' in CliRunner().invoke(app, ["status", "--json"]).stdout
