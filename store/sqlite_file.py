"""The embedded store's file: opening it safely, and what SQLite's errors mean.

- The file is the owner's alone (0600) and on a local file system.
- Write-ahead log, `synchronous=FULL`: a commit is on disk when it returns, and others read while one writes.
- A file that is not ours, or of a later version, is refused, never touched.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from provd.common.errors import StoreError, StoreUnavailable, UnsupportedQuery
from provd.store.migrations import SQLITE

#: "prov", in the file's header: this file is ours.
APPLICATION_ID = 0x70726F76


@contextmanager
def translated(url: str, *, reading: bool = False) -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except StoreUnavailable:  # an `OSError`, too
        raise
    except sqlite3.OperationalError as error:  # locked, disk full, I/O, cannot open
        raise StoreUnavailable(url, str(error)) from error
    except sqlite3.ProgrammingError as error:  # closed
        raise StoreUnavailable(url, str(error)) from error
    except sqlite3.Error as error:
        raise StoreError(f"{url}: {error}") from error
    except OSError as error:
        raise StoreUnavailable(url, error.strerror or str(error)) from error
    except (OverflowError, UnicodeError) as error:
        if not reading:
            raise
        raise UnsupportedQuery(str(error)) from error


def create(path: Path) -> None:
    """Make the file, and its folder, unless they are there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Be the only process that makes or changes the schema: turning on the write-ahead log does not wait for others.

    The lock is on a file beside the store: closing a descriptor of the store itself would drop SQLite's own locks.
    """
    lock = os.open(path.with_name(path.name + ".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def connect(path: Path, url: str, *, timeout_s: float, migrating: bool = False) -> sqlite3.Connection:
    """Open the file, which must exist; work inside `translated`.

    Raises `StoreUnavailable` where there is no file or no schema yet, and `StoreError` for a file that is not ours.
    """
    if not path.is_file():
        raise StoreUnavailable(url, "there is no store file yet; `provd consume --embedded` makes it")
    connection = sqlite3.connect(
        path, timeout=timeout_s, isolation_level=None, check_same_thread=False, cached_statements=64
    )
    try:
        _check_version(connection, path, url, migrating=migrating)
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def _check_version(connection: sqlite3.Connection, path: Path, url: str, *, migrating: bool) -> None:
    try:
        # In one transaction: another process may be making the file at this very moment.
        connection.execute("BEGIN")
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        connection.execute("COMMIT")
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{path} is not a provd store: {error}") from error
    if application != APPLICATION_ID and (tables or application):
        raise StoreError(f"{path} is not a provd store: another program's SQLite file; name another path")
    if version > len(SQLITE):
        raise StoreError(
            f"{path} is a store of a later provd (schema {version}, this one knows {len(SQLITE)}): upgrade"
        )
    if version < len(SQLITE) and not migrating:
        raise StoreUnavailable(
            url, "the store has no schema of this version yet; `provd store migrate` makes it"
        )


def initialise(connection: sqlite3.Connection) -> None:
    """Turn on the write-ahead log and mark the file as ours. Several processes may do this at once."""
    with closing(connection.execute("PRAGMA journal_mode = WAL")) as cursor:
        (mode,) = cursor.fetchone()
    if mode != "wal":
        raise StoreError(f"SQLite cannot keep a write-ahead log here (journal mode {mode}): use a local disk")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """A write transaction, begun at once so that it never has to be upgraded; rolled back on any error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
