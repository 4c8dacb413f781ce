"""What a store's keeper does with it as a whole, beside reading and writing it.

- Nothing here changes what a reader is told, but for bringing in what a backup has.
- Whatever takes long says how far it is, and has no time limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeAlias

from provd.common import names
from provd.common.record import ENDED
from provd.store.interface import Store

#: Told how much has been done, and of how much.
Progress: TypeAlias = Callable[[int, int], None]

#: Workflows whose ledgers are compacted at once.
_LEDGERS_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes of the schema that have been made, and those that this provd would make; in their order."""

    made: tuple[str, ...]
    pending: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Size:
    """A collection's documents, and bytes where the store can tell them: of documents, and of each index."""

    documents: int
    bytes: int | None
    indexes: Mapping[str, int | None]


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a store takes on its disk: `disk_bytes` in all, of which `free_bytes` hold nothing; None where nobody tells."""

    disk_bytes: int | None
    free_bytes: int | None
    collections: Mapping[str, Size]


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """Bytes on disk before and after, what was done, and what could not be done and why."""

    before: int | None
    after: int | None
    done: tuple[str, ...]
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RestoreMark:
    """Which backup was restored here last; without `ended_at` that was cut off."""

    backup_id: str
    ended_at: datetime | None


class Upkeep(Protocol):
    """See the module. Every method raises `StoreUnavailable` when the service does not answer."""

    #: `embedded` or `mongodb`: which of the two numbers its changes.
    kind: str

    def changes(self) -> Changes:
        """Which changes have been made. Raises `StoreUnavailable` where there is no store, and makes none."""

    def exact(self, store: Store) -> Store:
        """The same store for who reads several collections one after the other: the later ones know no less."""

    def store_id(self) -> str | None:
        """As `Store.identity`, of a store that has one already; gives none."""

    def migrate(self, on_progress: Progress) -> list[str]:
        """As `Store.migrate`, and says how far a change is where the store tells."""

    def documents(self) -> dict[str, int]:
        """About how many documents there are, by collection."""

    def sizes(self) -> Sizes:
        """What the store takes."""

    def reclaim(self, on_progress: Progress) -> Reclaimed:
        """Give the disk back what deleted documents took. Raises `StoreError` where there is no room to do it."""

    def put(self, collection: str, items: Iterable[Mapping[str, Any]]) -> None:
        """Bring in consumers' marks and tombstones as `find` gave them; those that are there stay."""

    def begin_restore(self, backup_id: str) -> str:
        """Note that a backup is being restored, and give the store another identity, which is returned."""

    def end_restore(self, backup_id: str) -> None:
        """Note that it has been restored."""

    def restored(self) -> RestoreMark | None:
        """Which backup was restored here last."""


def compact_ledgers(store: Store, on_progress: Progress) -> tuple[int, int, int]:
    """Compact the ledgers of all workflows that have ended; returns how many, and the ranges before and after."""
    before = store.count(names.LEDGER, {})
    found = store.find(names.WORKFLOWS, {"status": {"$in": sorted(ENDED)}}, fields=["workflow_id"])
    ended = [record["workflow_id"] for record in found]
    for start in range(0, len(ended), _LEDGERS_AT_ONCE):
        store.compact_ledger(*ended[start : start + _LEDGERS_AT_ONCE])
        on_progress(min(start + _LEDGERS_AT_ONCE, len(ended)), len(ended))
    return len(ended), before, store.count(names.LEDGER, {})


def identity_fields(collection: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """A document with the `_id` that its readers do not see. Raises `ValueError` for what has none."""
    field = {names.CONSUMERS: "name", names.TOMBSTONES: "workflow_id"}.get(collection)
    if field is None:
        raise ValueError(f"documents of {collection} are not brought in so")
    identity = document.get(field)
    if not isinstance(identity, str) or not identity:
        raise ValueError(f"a document of {collection} without {field}")
    return {**document, "_id": identity}
