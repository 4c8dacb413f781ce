"""Two stores at once, empty and migrated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from provd.store.interface import Store
from provd.store.open import open_store


@pytest.fixture
def copy(store_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    """An empty store of the other kind."""
    url = f"sqlite:///{tmp_path}/copy.db"
    if store_url.startswith("sqlite"):
        url = request.getfixturevalue("mongo_url")
    opened = open_store(url)
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
