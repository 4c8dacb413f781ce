"""Tombstones in MongoDB, where a batch is no transaction: a writer asks again after it has written.

- The tombstone is confirmed by the majority before the first document is deleted. A writer's own documents are
  confirmed by the majority before it asks. So either it sees the tombstone, and takes back what it wrote, or the
  deletion begins after its documents were there, and finds them.
- Until documents are being deleted (`begun_at`) nothing is taken back: the deletion will find it, and what is there may
  have been stored before, and is not in the archive yet.
- A consumer may lack the right to remove. What it should take back it then reports: the deletion is not finished any more, and
  whoever goes on with it removes it.
- Only a primary is asked.
- Asked before writing, too, so that what is late is not even seen for a moment: that answer may be some seconds old.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pymongo import ReadPreference
from pymongo.database import Database
from pymongo.errors import OperationFailure

from provd.common import clock, names, values
from provd.common.errors import StoreUnavailable
from provd.common.record import Kind, Message, Record
from provd.store import documents
from provd.store.tombstones import AT_ONCE, RUN_COLLECTIONS, Progress, askable

#: Seconds for which a run is taken to be there still, before writing, and runs that are remembered so.
_FRESH_S = 5.0
_REMEMBERED = 10_000

#: The server's code for a right that is missing.
_UNAUTHORIZED = 13


class Tombstones:
    """The tombstones of one database. Works through pymongo's own errors."""

    def __init__(self, database: Database[Record], url: str) -> None:
        self._database = database
        self._url = url
        self._collection = database[names.TOMBSTONES].with_options(read_preference=ReadPreference.PRIMARY)
        #: Runs that were there, and when that was.
        self._seen: dict[str, float] = {}

    def among(self, workflow_ids: Iterable[str]) -> dict[str, bool]:
        """What `ask` says, as known for some seconds at most."""
        oldest = clock.monotonic() - _FRESH_S
        return self.ask({one for one in workflow_ids if self._seen.get(one, 0.0) < oldest})

    def ask(self, workflow_ids: Iterable[str]) -> dict[str, bool]:
        """Those of the runs that have been deleted by now, and whether documents of them have been."""
        wanted = askable(workflow_ids)
        if not wanted:
            return {}
        now = clock.monotonic()
        tombstones = self._collection.find({"_id": {"$in": wanted}}, {"begun_at": 1})
        found = {document["_id"]: "begun_at" in document for document in tombstones}
        if len(self._seen) > _REMEMBERED:
            self._seen.clear()
        self._seen |= dict.fromkeys(set(wanted) - found.keys(), now)
        for one in found:
            self._seen.pop(one, None)
        return found

    def refuse(
        self, messages: Sequence[Message], deleted: Mapping[str, bool], gone: Mapping[str, int]
    ) -> None:
        """Take back what was written of messages of deleted runs, here or by a writer that was killed over it."""
        ids: dict[tuple[Kind, str], list[str]] = {}
        for message in messages:
            if deleted.get(message.workflow_id):
                try:
                    identity = documents.record_id(message)
                except ValueError:
                    continue  # it was never written
                ids.setdefault((message.kind, message.workflow_id), []).append(identity)
        for (kind, workflow_id), some in ids.items():
            self._remove(kind.collection, {"workflow_id": workflow_id, "_id": {"$in": some}})
            if kind is Kind.TASK:
                self._remove(names.LINKS, {"workflow_id": workflow_id, "task_id": {"$in": some}})
        self.count(gone)

    def _remove(self, collection: str, of_run: Record) -> None:
        """Remove documents of a deleted run, if there are any, or report them."""
        source = self._database[collection].with_options(read_preference=ReadPreference.PRIMARY)
        if source.find_one(of_run, {"_id": 1}) is None:
            return
        try:
            source.delete_many(of_run)
        except OperationFailure as error:
            if error.code != _UNAUTHORIZED:
                raise
            unfinished = {"$unset": {"finished_at": True}}
            self._collection.update_one({"_id": of_run["workflow_id"]}, unfinished)

    def take_back(self, collection: str, new: Sequence[Record]) -> None:
        """Remove what was just inserted of runs that have been deleted meanwhile."""
        deleted = self.ask({document["workflow_id"] for document in new if "workflow_id" in document})
        begun = sorted(workflow_id for workflow_id, has_begun in deleted.items() if has_begun)
        for workflow_id in begun:
            late = [document["_id"] for document in new if document.get("workflow_id") == workflow_id]
            self._remove(collection, {"workflow_id": workflow_id, "_id": {"$in": late}})

    def count(self, gone: Mapping[str, int]) -> None:
        """Count refused messages. Raises `StoreUnavailable` where the run has just been brought back: what was refused
        is to be written again.
        """
        for workflow_id, refused in gone.items():
            result = self._collection.update_one({"_id": workflow_id}, {"$inc": {"refused": refused}})
            if not result.matched_count:
                raise StoreUnavailable(self._url, f"run {workflow_id} was brought back meanwhile")

    def check_rights(self) -> None:
        """Raise pymongo's error where this user may not delete runs: before anything is begun."""
        for name in RUN_COLLECTIONS:
            self._database[name].delete_many({"_id": "", "workflow_id": ""})

    def begin(self, tombstone: Record, archive: str | None) -> None:
        """Write the tombstone, unless it stands."""
        workflow_id = tombstone["_id"]
        fields = {name: value for name, value in tombstone.items() if name not in ("_id", "archive")}
        update: Record = {"$setOnInsert": values.to_portable(fields)}
        if archive is not None:
            update["$set"] = {"archive": values.to_portable(archive)}
        self._collection.update_one({"_id": workflow_id}, update, upsert=True)

    def delete(self, workflow_id: str, total: int, on_progress: Progress) -> None:
        """Delete everything of a run whose tombstone stands, some thousand documents at a time."""
        done = 0
        self._note(workflow_id, "begun_at")
        for name in RUN_COLLECTIONS:
            collection = self._database[name].with_options(read_preference=ReadPreference.PRIMARY)
            while self.ask([workflow_id]):
                found = collection.find({"workflow_id": workflow_id}, {"_id": 1}).limit(AT_ONCE)
                ids = [document["_id"] for document in found]
                if not ids:
                    break
                collection.delete_many({"workflow_id": workflow_id, "_id": {"$in": ids}})
                done += len(ids)
                on_progress(done, max(done, total))
        self._note(workflow_id, "finished_at")

    def _note(self, workflow_id: str, state: str) -> None:
        """Write down when a state was reached, once."""
        now = clock.to_datetime(clock.now_ms())
        self._collection.update_one({"_id": workflow_id, state: {"$exists": False}}, {"$set": {state: now}})

    def remove(self, workflow_id: str) -> bool:
        """Remove the tombstone of a deletion that is over, or has done nothing yet."""
        is_over = {"finished_at": {"$exists": True}}
        has_not_begun = {"begun_at": {"$exists": False}, "refused": 0}
        result = self._collection.delete_one({"_id": workflow_id, "$or": [is_over, has_not_begun]})
        return bool(result.deleted_count)
