"""From a URL to a store: wrong URLs, missing extras, stores that are away, files that are not ours."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from provd.common.errors import MissingExtra, SettingsError, StoreError, StoreUnavailable
from provd.store.interface import Store
from provd.store.open import open_store
from tests.contract.messages import START_MS, task


@pytest.mark.parametrize(
    "url",
    [
        "postgres://host/x",
        "nonsense",
        "",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "mongodb://",
        "mongodb://h:x",
    ],
)
def test_a_url_that_names_no_store_is_a_settings_error(url: str) -> None:
    with pytest.raises(SettingsError):
        open_store(url)


def test_a_wrong_url_does_not_show_its_password() -> None:
    with pytest.raises(SettingsError) as refused:
        open_store("postgres://ada:secret@host/x")

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("hidden", "url", "extra"),
    [("pymongo", "mongodb://localhost", "consumer"), ("mongomock", None, "embedded")],
)
def test_a_missing_extra_names_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hidden: str, url: str | None, extra: str
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == hidden]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, hidden, None)

    with pytest.raises(MissingExtra, match=rf"provd\[{extra}\]"):
        if url:
            open_store(url)
        else:
            store = _embedded(tmp_path)
            list(store.aggregate("tasks", [{"$group": {"_id": None}}]))


def test_the_embedded_store_needs_neither_driver_to_write_and_find(tmp_path: Path) -> None:
    program = f"""
import sys
sys.modules["pymongo"] = sys.modules["bson"] = sys.modules["mongomock"] = None
from provd.store.open import open_store
store = open_store("sqlite:///{tmp_path / "provd.db"}")
store.migrate()
assert list(store.find("tasks", {{"status": "ERROR"}}, sort=[("used.x", 1)])) == []
"""

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_a_server_that_is_away_is_unavailable() -> None:
    store = open_store("mongodb://ada:secret@127.0.0.1:9/provd", timeout_s=0.2)
    try:
        for call in (
            store.ping,
            store.migrate,
            lambda: store.write([task(1)], received_at=START_MS),
            lambda: list(store.find("tasks", {})),
            lambda: store.count("tasks", {}),
            lambda: list(store.aggregate("tasks", [])),
            lambda: store.stored_ranges("w1"),
        ):
            with pytest.raises(StoreUnavailable) as away:
                call()
            assert "secret" not in str(away.value)
            assert "\n" not in str(away.value)
    finally:
        store.close()


def _embedded(tmp_path: Path, *, timeout_s: float = 5.0) -> Store:
    store = open_store(f"sqlite:///{tmp_path / 'provd.db'}", timeout_s=timeout_s)
    store.migrate()
    return store


def test_reading_a_file_that_is_not_there_is_unavailable_and_makes_none(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'none' / 'provd.db'}")

    with pytest.raises(StoreUnavailable, match="no store file"):
        list(store.find("tasks", {}))
    with pytest.raises(StoreUnavailable):
        store.write([task(1)], received_at=START_MS)

    assert not (tmp_path / "none").exists()


def test_the_file_is_the_owners_alone_durable_and_readable_while_written(tmp_path: Path) -> None:
    store = _embedded(tmp_path)
    store.write([task(1)], received_at=START_MS)

    with closing(sqlite3.connect(tmp_path / "provd.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    for name in os.listdir(tmp_path):
        if name.startswith("provd.db"):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    writer = store._writer  # type: ignore[attr-defined]
    assert writer.execute("PRAGMA synchronous").fetchone() == (2,)
    store.close()


def test_another_process_reads_while_a_write_is_under_way(tmp_path: Path) -> None:
    store = _embedded(tmp_path)
    store.write([task(1)], received_at=START_MS)

    with closing(sqlite3.connect(tmp_path / "provd.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("DELETE FROM tasks")
        assert store.count("tasks", {}) == 1
        other.execute("ROLLBACK")
    store.close()


def test_a_file_locked_for_too_long_is_unavailable_and_works_again(tmp_path: Path) -> None:
    store = _embedded(tmp_path, timeout_s=0.1)

    with closing(sqlite3.connect(tmp_path / "provd.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            store.write([task(1)], received_at=START_MS)
        other.execute("ROLLBACK")

    assert store.write([task(1)], received_at=START_MS).stored == 1
    store.close()


def test_a_file_of_a_later_version_is_refused(tmp_path: Path) -> None:
    _embedded(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "provd.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    store = open_store(f"sqlite:///{tmp_path / 'provd.db'}")

    for call in (store.ping, store.migrate, lambda: store.write([task(1)], received_at=START_MS)):
        with pytest.raises(StoreError, match="later provd"):
            call()


@pytest.mark.parametrize("content", ["foreign database", "text"])
def test_a_file_that_is_not_ours_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "provd.db"
    if content == "text":
        path.write_text("these are notes, " * 1000)
    else:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE tasks (x)")
            connection.commit()
    before = path.read_bytes()
    store = open_store(f"sqlite:///{path}")

    with pytest.raises(StoreError, match="not a provd store"):
        store.migrate()

    assert path.read_bytes() == before
