"""Both stores, empty and migrated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from provd.store.interface import Store
from provd.store.open import open_store


@pytest.fixture(params=["mongodb", "embedded"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a store of the test's own."""
    if request.param == "mongodb":
        return str(request.getfixturevalue("mongo_url"))
    return f"sqlite:///{tmp_path / 'provd.db'}"


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """A migrated store."""
    opened = open_store(store_url)
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture
def both(mongo_url: str, tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    """MongoDB and the embedded store, to be compared."""
    stores = open_store(mongo_url), open_store(f"sqlite:///{tmp_path / 'provd.db'}")
    for one in stores:
        one.migrate()
    yield stores
    for one in stores:
        one.close()
