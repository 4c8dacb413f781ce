"""The ledger of workflows that go on for long is compacted from time to time, so that it grows with their gaps only.

- What this consumer has entered is counted; each consumer compacts what it has made grow. Two that compact one ledger
  at once do no harm (`Store.compact_ledger`).
- The more ranges are left after a compaction, the later is the next: its cost stays a small share of the writing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from provd.common import names
from provd.store.interface import Store, Stored

#: Entries after which a workflow's ledger is compacted, and how many times what was left that is at least.
_GROWN = 1000
_TIMES_LEFT = 4


@dataclass(slots=True)
class _Growth:
    entries: int = 0
    limit: int = _GROWN


class Compaction:
    """Counts entries, and compacts where there are many."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._growth: dict[str, _Growth] = {}

    def note(self, entries: Iterable[Stored]) -> None:
        """The ledger has grown by these."""
        for entry in entries:
            self._growth.setdefault(entry.workflow_id, _Growth()).entries += 1

    def look(self, streams: Collection[str]) -> int:
        """Compact where it is time, and forget workflows that have no stream; returns how many were compacted."""
        if len(self._growth) > len(streams):
            known = set(map(names.workflow_of_stream, streams))
            self._growth = {one: growth for one, growth in self._growth.items() if one in known}
        due = [one for one, growth in self._growth.items() if growth.entries >= growth.limit]
        for workflow_id in due:
            left = self._store.compact_ledger(workflow_id)
            self._growth[workflow_id] = _Growth(0, max(_GROWN, _TIMES_LEFT * left))
        return len(due)
