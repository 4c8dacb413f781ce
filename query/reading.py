"""A store opened to be read: one that is there, answers, and shows what the reader may see."""

from __future__ import annotations

from pathlib import Path

from provd.common.errors import StoreUnavailable
from provd.common.passwords import mask_url
from provd.common.settings import Settings
from provd.store.interface import Store

_EMBEDDED = "sqlite:///"


def open_reading(settings: Settings) -> Store:
    """The store that the settings name. Raises `StoreUnavailable` when it does not answer, and makes none."""
    from provd.store.open import open_store

    url = settings.resolved_store_url()
    file = embedded_file(url)
    if file is not None and not file.is_file():
        raise StoreUnavailable(mask_url(url), f"there is no file {file}; is it the right path?")
    store = open_store(url)
    try:
        store.ping()
    except BaseException:
        store.close()
        raise
    if settings.tenant_id is None:
        return store
    from provd.query.tenant import scoped

    return scoped(store, settings.tenant_id)


def embedded_file(url: str) -> Path | None:
    """The file of an embedded store's URL, None for other stores and for a URL without a file."""
    path = url.removeprefix(_EMBEDDED).partition("?")[0]
    return Path(path) if url.startswith(_EMBEDDED) and path else None
