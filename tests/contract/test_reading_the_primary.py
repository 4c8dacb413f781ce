"""What is read from the primary, although the URL asks for a secondary, which may not have it yet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from provd.common import names
from provd.query.archive import Archiving, remove_run
from provd.store.open import open_store
from tests.builders import START_MS, finished_run
from tests.services.mongo_server import MongoServer


def test_what_a_document_is_merged_with_is_read_where_nothing_is_late(
    private_mongo: Callable[..., MongoServer],
) -> None:
    """A secondary may not have it yet: it would be taken for removed, and what is brought in would be dropped."""
    server = private_mongo(replica_set=True)
    store = open_store(server.url)
    store.migrate()
    finished_run(store, "alpha")
    tasks = list(store.find(names.TASKS, {}))
    address = server.url + ("&" if "?" in server.url else "?") + "readPreference=secondary"
    elsewhere = open_store(address)

    again = elsewhere.put_documents(names.TASKS, tasks, received_at=START_MS)
    later = [{**tasks[0], "seq": 99, "hostname": "node99"}]
    changed = elsewhere.put_documents(names.TASKS, later, received_at=START_MS)

    assert (again.stored, again.duplicates) == (0, len(tasks))
    assert changed.stored == 1
    assert store.count(names.TASKS, {"hostname": "node99"}) == 1
    store.close()
    elsewhere.close()


def test_an_archive_is_written_and_compared_where_nothing_is_late(
    private_mongo: Callable[..., MongoServer], tmp_path: Path
) -> None:
    """Else what a secondary does not have yet would be neither in the archive nor in the comparison, and deleted."""
    server = private_mongo(replica_set=True)
    store = open_store(server.url)
    store.migrate()
    finished_run(store, "alpha")
    address = server.url + ("&" if "?" in server.url else "?") + "readPreference=secondary"
    elsewhere = open_store(address, timeout_s=10)  # there is no secondary

    tombstone = remove_run(elsewhere, "alpha", archiving=Archiving(tmp_path / "archive"))

    assert "finished_at" in tombstone
    assert (tmp_path / "archive" / "alpha.jsonl").exists()
    store.close()
    elsewhere.close()
