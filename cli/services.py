"""The store that a command reads, opened and closed around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from provd.common.errors import StoreUnavailable
from provd.common.passwords import mask_url
from provd.common.settings import Settings
from provd.store.interface import Store

_EMBEDDED = "sqlite:///"


@contextmanager
def open_store(settings: Settings) -> Iterator[Store]:
    """The effective store, for reading; raises `StoreUnavailable` when it does not answer, and makes none."""
    from provd.store.open import open_store as open_url

    url = settings.resolved_store_url()
    file = embedded_file(url)
    if file is not None and not file.is_file():
        raise StoreUnavailable(mask_url(url), f"there is no file {file}; is it the right path?")
    store = open_url(url)
    try:
        store.ping()
        yield store
    finally:
        store.close()


def embedded_file(url: str) -> Path | None:
    """The file of an embedded store's URL, None for other stores and for a URL without a file."""
    path = url.removeprefix(_EMBEDDED).partition("?")[0]
    return Path(path) if url.startswith(_EMBEDDED) and path else None
