"""The store that a command reads, opened and closed around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from provd.common.settings import Settings
from provd.query.reading import embedded_file, open_reading
from provd.store.interface import Store

__all__ = ["embedded_file", "open_store"]


@contextmanager
def open_store(settings: Settings) -> Iterator[Store]:
    """The effective store, for reading, as the tenant of the settings sees it.

    Raises `StoreUnavailable` when it does not answer, and makes none.
    """
    store = open_reading(settings)
    try:
        yield store
    finally:
        store.close()
