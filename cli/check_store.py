"""Whether the store answers, and keeps what it confirms."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from provd.cli import human
from provd.cli.check_machine import file_system_of, nearest_existing
from provd.cli.checks import Check, Level, judge
from provd.cli.services import embedded_file
from provd.common.advice import advice_for
from provd.common.errors import MissingExtra, ProvdError, ServiceUnavailable
from provd.common.passwords import hide, mask_url
from provd.common.settings import Settings

#: The oldest MongoDB that has every operation provd uses.
_OLDEST_MONGODB = (4, 2)

_INITIATE_IT = "it is a replica set without a primary: once, when it is new, mongosh --eval 'rs.initiate()'"
_START_IT = "start MongoDB there, or name another store: PROVD_STORE_URL=mongodb://HOST:27017/provd"


def check_store(settings: Settings) -> Iterator[Check]:
    """Ask the store about itself; one result when it does not answer."""
    url = settings.resolved_store_url()
    file = embedded_file(url)
    if file is not None:
        yield from _check_embedded(url, file)
        return
    try:
        yield from _check_mongodb(url)
    except ServiceUnavailable as error:
        yield Check(
            "store",
            Level.UNREACHABLE,
            str(error),
            advice_for(str(error), url) or (_INITIATE_IT if "Primary()" in str(error) else _START_IT),
        )
    except MissingExtra as error:
        yield Check("store", Level.FAILED, f"{mask_url(url)} was not asked: no pymongo here", str(error))
    except ProvdError as error:
        yield Check(
            "store", Level.FAILED, f"{mask_url(url)}: {hide(str(error), url)}", "correct the store's URL"
        )


def _check_embedded(url: str, file: Path) -> Iterator[Check]:
    from provd.store.open import open_store

    if not file.exists():
        folder = nearest_existing(file.parent)
        yield judge(
            "store",
            os.access(folder, os.W_OK),
            f"embedded, {file} will be made by the first consumer, on {file_system_of(folder)}",
            fix=f"make {folder} writable, or name another file",
            otherwise=Level.FAILED,
        )
        return
    try:
        store = open_store(url)
        try:
            store.ping()
        finally:
            store.close()
    except ServiceUnavailable as error:
        yield Check(
            "store", Level.UNREACHABLE, str(error), "make the file readable and writable for this user"
        )
        return
    except ProvdError as error:
        yield Check(
            "store", Level.FAILED, str(error), "see the message: the file is unsafe or not a store here"
        )
        return
    finding = f"embedded, {file} ({human.size(file.stat().st_size)}) on {file_system_of(file)}"
    yield Check("store", Level.OK, f"{finding}, SQLite {sqlite3.sqlite_version}")


def _check_mongodb(url: str) -> Iterator[Check]:
    from provd.store.open import open_store

    store = open_store(url)
    try:
        store.ping()
    finally:
        store.close()
    import pymongo
    from pymongo.errors import PyMongoError

    client: pymongo.MongoClient[Any] = pymongo.MongoClient(url, serverSelectionTimeoutMS=5000)
    try:
        version = client.server_info()["version"]
        replica_set = client.admin.command("hello").get("setName")
    except PyMongoError as error:
        yield Check(
            "store", Level.FAILED, f"{mask_url(url)}: {hide(str(error), url)}", "look at MongoDB's own log"
        )
        return
    finally:
        client.close()
    numbers = tuple(int(part) for part in version.split(".")[:2])
    yield judge(
        "store",
        numbers >= _OLDEST_MONGODB,
        f"{mask_url(url)} answers, MongoDB {version}",
        fix="use MongoDB 4.2 or later",
        otherwise=Level.FAILED,
    )
    yield judge(
        "store copies",
        replica_set is not None,
        f"replica set {replica_set}" if replica_set else "a single server",
        fix="fine for one machine; a replica set keeps the records when a disk is lost",
    )
