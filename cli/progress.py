"""A bar for work that takes longer than a moment, on a terminal only, and gone when the work is done."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

#: Seconds of work before which there is no bar.
_PATIENCE_S = 1.0


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Gives what is to be called with how much is done, and of how much."""
    if not sys.stderr.isatty():
        yield _tell_nobody
        return
    bar = _Bar(what)
    try:
        yield bar.tell
    finally:
        bar.close()


def _tell_nobody(done: int, total: int) -> None:
    """Away from a terminal nobody watches."""


class _Bar:
    """Appears after a second, also when there is no news by then."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._news: tuple[int, int | None] = (0, None)
        self._timer = threading.Timer(_PATIENCE_S, self._appear)
        self._timer.daemon = True
        self._timer.start()

    def tell(self, done: int, total: int) -> None:
        """Show how far the work has come."""
        with self._lock:
            self._news = done, total
            self._update()

    def close(self) -> None:
        """Take it away."""
        self._timer.cancel()
        self._timer.join()
        if self._progress is not None:
            self._progress.stop()

    def _appear(self) -> None:
        with self._lock:
            self._progress = _make()
            self._progress.add_task(self._what, total=None)
            self._update()
            self._progress.start()

    def _update(self) -> None:
        if self._progress is not None:
            done, total = self._news
            self._progress.update(self._progress.task_ids[0], completed=done, total=total)


def _make() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
