"""The upkeep of a MongoDB database.

- What may take minutes (building an index, compacting) waits for as long as the server works on it: the looks that the
  driver takes beside it end the waiting for a server that hangs.
- A change that cannot be made now, because the server or a role forbids it, is told with the server's reason.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pymongo
from pymongo import ReadPreference, errors
from pymongo.database import Database

from provd.common import clock, ids, names, values
from provd.common.record import Record
from provd.store import migrations
from provd.store.interface import Store
from provd.store.mongo_batch import failures
from provd.store.mongo_errors import one_line, translated
from provd.store.upkeep import Changes, Progress, Reclaimed, RestoreMark, Size, Sizes, identity_fields

#: Seconds between two questions of how far the building of an index is.
_LOOK_S = 1.0

_NAMESPACE_NOT_FOUND = 26
_UNAUTHORIZED = 13


class MongoUpkeep:
    """See the module."""

    kind = "mongodb"

    def __init__(
        self,
        url: str,
        database: Database[Record],
        *,
        patient: Callable[[], pymongo.MongoClient[Record]],
        on_primary: Callable[[Database[Record]], Store],
    ) -> None:
        """`patient` makes a client whose answers may take as long as they like, `on_primary` the same store that reads from
        this database. `url` is masked.
        """
        self._url = url
        self._reads_elsewhere = database.read_preference != ReadPreference.PRIMARY
        self._database = database.with_options(read_preference=ReadPreference.PRIMARY)
        self._patient = patient
        self._on_primary = on_primary

    @contextmanager
    def _patiently(self) -> Iterator[Database[Record]]:
        with translated(self._url), self._patient() as client:
            yield client.get_database(
                self._database.name,
                codec_options=self._database.codec_options,
                read_preference=ReadPreference.PRIMARY,
                write_concern=self._database.write_concern,
            )

    def exact(self, store: Store) -> Store:
        """A secondary, where the URL asks for one, may have the ledger and not yet another one the records."""
        return self._on_primary(self._database) if self._reads_elsewhere else store

    def changes(self) -> Changes:
        """By the collection `migrations`."""
        with translated(self._url):
            made = migrations.made_in_mongo(self._database)
        return Changes(
            tuple(change.__name__ for change in migrations.MONGO if change.__name__ in made),
            tuple(change.__name__ for change in migrations.MONGO if change.__name__ not in made),
        )

    def migrate(self, on_progress: Progress) -> list[str]:
        """Says how far the server is with an index."""
        if not self.changes().pending:  # nearly always: every consumer asks at its start
            with translated(self._url):
                return migrations.migrate_mongo(self._database)
        with self._patiently() as database, _watched(database, on_progress):
            return migrations.migrate_mongo(database)

    # --- sizes -------------------------------------------------------------------------------------------------

    def documents(self) -> dict[str, int]:
        """By the server's own count."""
        with translated(self._url):
            return {name: self._database[name].estimated_document_count() for name in names.COLLECTIONS}

    def sizes(self) -> Sizes:
        """By the server's statistics; of a user who may not see them, the documents alone."""
        with translated(self._url):
            try:
                found = {name: _stats(self._database, name) for name in names.COLLECTIONS}
            except errors.OperationFailure as error:
                if error.code != _UNAUTHORIZED:
                    raise
                return Sizes(None, None, {name: Size(n, None, {}) for name, n in self.documents().items()})
        return Sizes(
            sum(one["disk"] for one in found.values()),
            sum(one["free"] for one in found.values()),
            {name: Size(one["documents"], one["bytes"], one["indexes"]) for name, one in found.items()},
        )

    # --- reclaiming --------------------------------------------------------------------------------------------

    def reclaim(self, on_progress: Progress) -> Reclaimed:
        """The command `compact` on each collection, where the server lets us."""
        before = self.sizes().disk_bytes
        done, refused = [], []
        with self._patiently() as database:
            known = [name for name in names.COLLECTIONS if name in set(database.list_collection_names())]
            for number, name in enumerate(known):
                on_progress(number, len(known))
                try:
                    database.command("compact", name)
                    done.append(f"compact {name}")
                except errors.OperationFailure as error:
                    refused.append(f"compact {name}: {one_line(error)}")
        return Reclaimed(before, self.sizes().disk_bytes, tuple(done), tuple(refused))

    # --- a backup's documents ----------------------------------------------------------------------------------

    def put(self, collection: str, items: Iterable[Mapping[str, Any]]) -> None:
        """By one insertion."""
        new = [values.to_portable(identity_fields(collection, item)) for item in items]
        if not new:
            return
        with translated(self._url):
            try:
                self._database[collection].insert_many(new, ordered=False)
            except errors.BulkWriteError as error:
                if failures(error):
                    raise

    def begin_restore(self, backup_id: str) -> str:
        """The identity first: a store that is still empty may be restored into by anybody."""
        store_id = ids.new_store_id()
        with translated(self._url):
            notes = self._database[names.MIGRATIONS]
            notes.replace_one({"_id": migrations.IDENTITY}, {"store_id": store_id}, upsert=True)
            begun = {"backup_id": backup_id, "begun_at": clock.to_datetime(clock.now_ms())}
            notes.replace_one({"_id": migrations.RESTORE}, begun, upsert=True)
        return store_id

    def end_restore(self, backup_id: str) -> None:
        """Beside the changes of the schema."""
        ended = {"backup_id": backup_id, "ended_at": clock.to_datetime(clock.now_ms())}
        with translated(self._url):
            self._database[names.MIGRATIONS].replace_one({"_id": migrations.RESTORE}, ended, upsert=True)

    def restored(self) -> RestoreMark | None:
        """Beside the changes of the schema."""
        found = self._noted(migrations.RESTORE)
        return None if found is None else RestoreMark(found["backup_id"], found.get("ended_at"))

    def store_id(self) -> str | None:
        """Beside the changes of the schema."""
        found = self._noted(migrations.IDENTITY)
        return None if found is None else str(found["store_id"])

    def _noted(self, name: str) -> Record | None:
        with translated(self._url):
            return self._database[names.MIGRATIONS].find_one({"_id": name})


def _stats(database: Database[Record], name: str) -> dict[str, Any]:
    """Of one collection, over all shards; nothing of one that is not there."""
    told: dict[str, Any] = {"documents": 0, "bytes": 0, "disk": 0, "free": 0, "indexes": {}}
    try:
        for shard in database[name].aggregate([{"$collStats": {"storageStats": {}}}]):
            stats = shard["storageStats"]
            told["documents"] += stats.get("count", 0)
            told["bytes"] += stats.get("storageSize", 0)
            told["disk"] += stats.get("storageSize", 0) + stats.get("totalIndexSize", 0)
            told["free"] += stats.get("freeStorageSize", 0)
            for index, size in stats.get("indexSizes", {}).items():
                told["indexes"][index] = told["indexes"].get(index, 0) + size
    except errors.OperationFailure as error:
        if error.code != _NAMESPACE_NOT_FOUND:
            raise
    return told


@contextmanager
def _watched(database: Database[Record], on_progress: Progress) -> Iterator[None]:
    """Tell how far the server is with building indexes, as far as our role may know."""
    over = threading.Event()
    watcher = threading.Thread(
        target=_watch, args=(database, on_progress, over), name="provd-migrate", daemon=True
    )
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _watch(database: Database[Record], on_progress: Progress, over: threading.Event) -> None:
    building: list[dict[str, Any]] = [
        {"$currentOp": {"allUsers": True}},
        {"$match": {"msg": {"$regex": "^Index Build"}, "ns": {"$regex": f"^{database.name}\\."}}},
    ]
    while not over.wait(_LOOK_S):
        try:
            for operation in database.client.admin.aggregate(building):
                progress = operation.get("progress", {})
                if progress.get("total"):
                    on_progress(int(progress["done"]), int(progress["total"]))
        except errors.PyMongoError:
            return  # nobody may know, or the server is away: the change itself says so
