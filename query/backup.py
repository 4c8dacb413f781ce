"""A store as a folder, while consumers go on writing to it.

Invariants:

- The copy never claims more than it holds: the ledger is read before the records that it names, and a record is written
  before its entry.
- Nor less, of what was there when the backup began: a message goes from a spool to the quarantine to the ledger, if it
  goes, and the three are read in this order, so that none is overlooked on its way.
- What is deleted meanwhile is deleted in the copy: its tombstone was there before the first document went, and
  tombstones are read last. `provd restore` leaves out what they name.
- Memory is bounded by what the store gives at a time.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

from provd.common import clock, names
from provd.store.backup_folder import (
    COLLECTIONS,
    PART_BYTES,
    Manifest,
    Origin,
    Part,
    new_folder,
    write_collection,
    write_manifest,
)
from provd.store.documents import LEDGER_ORDER
from provd.store.interface import Store


def back_up(
    store: Store,
    folder: Path,
    *,
    version: str,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    part_bytes: int = PART_BYTES,
) -> Manifest:
    """Write all that a store has into a new folder. `on_progress` is told documents.

    Raises `UsageError` where the folder is not empty, `OutputError`, and `StoreUnavailable`.
    """
    upkeep = store.upkeep()
    source = upkeep.exact(store)
    origin = Origin(store.url, upkeep.store_id(), upkeep.kind, upkeep.changes().made)
    started_at = _now()
    expected = upkeep.documents()
    total = sum(expected[name] for name in COLLECTIONS)
    done = 0

    def one_more() -> None:
        nonlocal done
        done += 1
        if done % 1000 == 0:
            on_progress(done, max(done, total))

    with new_folder(folder) as temporary:
        collections: dict[str, tuple[Part, ...]] = {}
        for name in COLLECTIONS:
            found = source.find(name, {}, sort=LEDGER_ORDER if name == names.LEDGER else ())
            collections[name] = write_collection(
                temporary, name, iter(found), part_bytes=part_bytes, on_document=one_more
            )
        manifest = Manifest(secrets.token_hex(16), version, started_at, _now(), origin, collections)
        write_manifest(temporary, manifest)
    return manifest


def _now() -> str:
    return clock.to_iso(clock.now_ms())
