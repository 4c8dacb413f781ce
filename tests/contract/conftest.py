"""Both stores at once, empty and migrated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from provd.store.interface import Store
from provd.store.open import open_store


@pytest.fixture
def both(mongo_url: str, tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    """MongoDB and the embedded store, to be compared."""
    stores = open_store(mongo_url), open_store(f"sqlite:///{tmp_path / 'provd.db'}")
    for one in stores:
        one.migrate()
    yield stores
    for one in stores:
        one.close()
