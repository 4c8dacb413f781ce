"""When a run with `--exit-when-done` is over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from provd.common import clock
from provd.common.errors import ProvdError
from provd.store.books import WorkflowBooks, read_books
from provd.store.interface import Store

#: Seconds between two looks at the books: each costs the store several queries.
_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended: `gaps` is empty when all named workflows are complete; `unreachable` is the error of a service that
    has not answered once.
    """

    complete: bool
    gaps: tuple[str, ...] = ()
    unreachable: ProvdError | None = None


class Completion:
    """Watches named workflows until they are complete, or nothing has happened for too long."""

    def __init__(
        self,
        store: Store,
        workflow_ids: Sequence[str],
        *,
        grace_s: float,
        waiting: Callable[[], int],
        activity: Callable[[], int],
    ) -> None:
        """`waiting` counts unacknowledged frames; `activity` is a number that grows with every sign of life."""
        self._store = store
        self._workflow_ids = tuple(workflow_ids)
        self._grace_s = grace_s
        self._waiting = waiting
        self._activity = activity
        self._seen = -1
        self._since = clock.monotonic()
        self._due = 0.0
        self._away_since = 0.0
        self._seen_away = -1
        self.outcome: Outcome | None = None

    def goes_on(self) -> bool:
        """Whether to go on; to be asked when there is nothing to read. Raises when a service is away."""
        now = clock.monotonic()
        if now < self._due:
            return True
        # A service that was away is not the workflows' silence.
        was_away = self._due > 0.0 and now - self._due > max(5.0, self._grace_s / 2)
        if self._activity() != self._seen or was_away:
            self._seen, self._since = self._activity(), now
        books = [read_books(self._store, workflow_id) for workflow_id in self._workflow_ids]
        self._away_since = 0.0
        if all(book.complete for book in books) and not self._waiting():
            self.outcome = Outcome(True)
        elif clock.monotonic() - self._since > self._grace_s:
            self.outcome = Outcome(
                False, tuple(gaps(book) for book in books if not book.complete) or _PENDING
            )
        self._due = clock.monotonic() + _PAUSE_S
        return self.outcome is None

    def gives_up(self, error: ProvdError) -> bool:
        """Whether a service has been away for the whole grace, and nothing has happened meanwhile."""
        now = clock.monotonic()
        if not self._away_since or self._activity() != self._seen_away:
            self._seen_away, self._away_since = self._activity(), now
        if now - self._away_since <= self._grace_s:
            return False
        never = self._due == 0.0 and self._activity() == 0
        gap = f"gave up after {self._grace_s:g} s without a service: {error}"
        self.outcome = Outcome(False, (gap,), unreachable=error if never else None)
        return True


_PENDING = ("all is stored, and frames of another consumer are still pending",)


def gaps(books: WorkflowBooks) -> str:
    """One line that names what is missing from a workflow."""
    parts = [] if books.producers else ["no producer has been heard of"]
    for producer in books.producers:
        for bucket in ("missing", "quarantined", "spooled", "dropped"):
            ranges = getattr(producer, bucket)
            if ranges:
                parts.append(f"{bucket} {producer.producer_id}: {ranges}")
        if producer.tasks_ended is not None and producer.tasks_ended != producer.tasks_stored:
            parts.append(
                f"{producer.producer_id} ended {producer.tasks_ended} tasks, {producer.tasks_stored} are stored"
            )
    if books.unclosed:
        parts.append(f"never closed: {', '.join(books.unclosed)}")
    if books.missing_ranks:
        parts.append(f"ranks that never appeared: {', '.join(map(str, books.missing_ranks))}")
    if books.unattributed:
        parts.append(f"{books.unattributed} unreadable frames")
    return f"{books.workflow_id}: {'; '.join(parts)}"
