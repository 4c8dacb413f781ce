"""From a URL to an open store. Drivers are imported here, when a store of their kind is asked for."""

from __future__ import annotations

from provd.common.errors import MissingExtra, SettingsError
from provd.common.passwords import mask_url
from provd.store.interface import Store


def open_store(url: str, *, timeout_s: float = 5.0) -> Store:
    """Open the store that a URL names, without migrating it or asking whether it answers.

    `mongodb://` and `mongodb+srv://` as MongoDB has them (the database is the path, `provd` where there is none);
    `sqlite:///relative/path` and `sqlite:////absolute/path` for the embedded store. Raises `SettingsError`,
    `MissingExtra`, `UnsafeStore`. `timeout_s` is how long an operation waits for the service, or for its lock.
    """
    scheme = url.partition("://")[0]
    if scheme in ("mongodb", "mongodb+srv"):
        return _open_mongo(url, timeout_s)
    if scheme == "sqlite":
        return _open_embedded(url, timeout_s)
    raise SettingsError(
        f"the store URL {mask_url(url)!r} has no known scheme: use mongodb://HOST:PORT/DATABASE, mongodb+srv://… or"
        " sqlite:///PATH (four slashes for an absolute path)"
    )


def _open_mongo(url: str, timeout_s: float) -> Store:
    try:
        import pymongo  # noqa: F401
    except ImportError as error:
        raise MissingExtra("MongoDB", "consumer") from error
    from provd.store.mongo import MongoStore

    return MongoStore(url, timeout_s=timeout_s)


def _open_embedded(url: str, timeout_s: float) -> Store:
    prefix = "sqlite:///"
    path = url.removeprefix(prefix).partition("?")[0]
    if not url.startswith(prefix) or not path or path == ":memory:":
        raise SettingsError(
            f"the store URL {mask_url(url)!r} names no file: use sqlite:///relative/path or sqlite:////absolute/path"
        )
    from provd.store.embedded import EmbeddedStore

    return EmbeddedStore(path, timeout_s=timeout_s)
