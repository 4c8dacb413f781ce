"""The upkeep of the embedded store's file.

- VACUUM writes the file anew beside the old one and then over it: room for both is asked for first.
- Sizes of tables and indexes are SQLite's own count of pages; some builds of SQLite cannot tell.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

from provd.common import clock, ids, names, values
from provd.common.errors import StoreError
from provd.store import sqlite_file
from provd.store.interface import Store
from provd.store.migrations import IDENTITY, RESTORE, SQLITE
from provd.store.sql_rows import insert, row_of
from provd.store.upkeep import Changes, Progress, Reclaimed, RestoreMark, Size, Sizes, identity_fields

#: Bytes that are left on the disk whatever is done.
_RESERVE = 64 << 20


class SqliteUpkeep:
    """See the module."""

    kind = "embedded"

    def __init__(
        self,
        path: Path,
        url: str,
        *,
        migrate: Callable[[], list[str]],
        writing: Callable[[], AbstractContextManager[sqlite3.Connection]],
        timeout_s: float,
    ) -> None:
        self._path = path
        self._url = url
        self._migrate = migrate
        self._writing = writing
        self._timeout_s = timeout_s

    def _connect(self, *, any_schema: bool = False) -> sqlite3.Connection:
        return sqlite_file.connect(self._path, self._url, timeout_s=self._timeout_s, migrating=any_schema)

    def exact(self, store: Store) -> Store:
        """There is one file."""
        return store

    def changes(self) -> Changes:
        """By the number in the file's header."""
        with sqlite_file.translated(self._url), closing(self._connect(any_schema=True)) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
        all_names = tuple(change.__name__ for change in SQLITE)
        return Changes(all_names[:version], all_names[version:])

    def migrate(self, on_progress: Progress) -> list[str]:  # noqa: ARG002
        """In one transaction, which does not say how far it is."""
        return self._migrate()

    # --- sizes -------------------------------------------------------------------------------------------------

    def documents(self) -> dict[str, int]:
        """Exactly."""
        with sqlite_file.translated(self._url), closing(self._connect()) as connection:
            return {name: _documents(connection, name) for name in names.COLLECTIONS}

    def sizes(self) -> Sizes:
        """By SQLite's pages, and by the files."""
        with sqlite_file.translated(self._url), closing(self._connect()) as connection:
            (page,) = connection.execute("PRAGMA page_size").fetchone()
            (free,) = connection.execute("PRAGMA freelist_count").fetchone()
            taken = _taken(connection)
            collections = {name: _size(connection, name, taken) for name in names.COLLECTIONS}
        return Sizes(self._disk_bytes(), free * page, collections)

    def _disk_bytes(self) -> int:
        files = (self._path, self._path.with_name(self._path.name + "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    # --- reclaiming --------------------------------------------------------------------------------------------

    def reclaim(self, on_progress: Progress) -> Reclaimed:  # noqa: ARG002
        """VACUUM, and empty the write-ahead log."""
        with sqlite_file.translated(self._url), closing(self._connect()) as connection:
            before = self._disk_bytes()
            self._check_room(before)
            connection.execute("VACUUM")
            (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            refused = ("the write-ahead log is in use and was not emptied",) if busy else ()
            return Reclaimed(before, self._disk_bytes(), ("VACUUM",), refused)

    def _check_room(self, size: int) -> None:
        """The new file is made where temporary files are, and goes through the log before it replaces the old one."""
        places = {self._path.parent: size}
        temporary = Path(tempfile.gettempdir())
        if temporary.stat().st_dev == self._path.parent.stat().st_dev:
            places[self._path.parent] += size
        else:
            places[temporary] = size
        for place, needed in places.items():
            free = shutil.disk_usage(place).free
            if free < needed + _RESERVE:
                raise StoreError(
                    f"{place} has {free >> 20:,} MiB free, and VACUUM needs {(needed + _RESERVE) >> 20:,}: make room"
                    " first; nothing was done"
                )

    # --- a backup's documents ----------------------------------------------------------------------------------

    def put(self, collection: str, items: Iterable[Mapping[str, Any]]) -> None:
        """In one transaction."""
        rows = [row_of(collection, identity_fields(collection, item)) for item in items]
        with self._writing() as connection:
            connection.executemany(insert(collection, "OR IGNORE"), rows)

    def begin_restore(self, backup_id: str) -> str:
        """In one transaction."""
        store_id = ids.new_store_id()
        begun = {"_id": RESTORE, "backup_id": backup_id, "begun_at": clock.to_datetime(clock.now_ms())}
        with self._writing() as connection:
            _note(connection, {"_id": IDENTITY, "store_id": store_id})
            _note(connection, begun)
        return store_id

    def end_restore(self, backup_id: str) -> None:
        """Beside the changes of the schema."""
        now = clock.to_datetime(clock.now_ms())
        with self._writing() as connection:
            _note(connection, {"_id": RESTORE, "backup_id": backup_id, "ended_at": now})

    def restored(self) -> RestoreMark | None:
        """Beside the changes of the schema."""
        found = self._noted(RESTORE)
        return None if found is None else RestoreMark(found["backup_id"], found.get("ended_at"))

    def store_id(self) -> str | None:
        """Beside the changes of the schema."""
        found = self._noted(IDENTITY)
        return None if found is None else str(found["store_id"])

    def _noted(self, name: str) -> Any:
        query = f"SELECT document FROM {names.MIGRATIONS} WHERE _id = ?"  # noqa: S608
        with sqlite_file.translated(self._url), closing(self._connect()) as connection:
            found = connection.execute(query, (name,)).fetchone()
        return None if found is None else values.from_json(found[0])


def _note(connection: sqlite3.Connection, document: dict[str, Any]) -> None:
    query = f"INSERT OR REPLACE INTO {names.MIGRATIONS} VALUES (?, ?)"  # noqa: S608
    connection.execute(query, (document["_id"], values.to_json(document)))


def _taken(connection: sqlite3.Connection) -> dict[str, int] | None:
    """Bytes by table and index; None where this SQLite cannot tell."""
    try:
        return dict(connection.execute("SELECT name, pgsize FROM dbstat WHERE aggregate = TRUE").fetchall())
    except sqlite3.OperationalError:
        return None


def _documents(connection: sqlite3.Connection, collection: str) -> int:
    (documents,) = connection.execute(f"SELECT count(*) FROM {collection}").fetchone()  # noqa: S608
    return int(documents)


def _size(connection: sqlite3.Connection, collection: str, taken: dict[str, int] | None) -> Size:
    listed = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = ?", (collection,)
    )
    indexes = {_short(name, collection): None if taken is None else taken.get(name, 0) for (name,) in listed}
    taken_here = None if taken is None else taken.get(collection, 0)
    return Size(_documents(connection, collection), taken_here, indexes)


def _short(index: str, collection: str) -> str:
    return "_id_" if index.startswith("sqlite_autoindex_") else index.removeprefix(f"{collection}_")
