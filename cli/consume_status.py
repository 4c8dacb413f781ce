"""What a running consumer shows: a live line on a terminal, log lines elsewhere; both on stderr."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from provd.cli import human, output
from provd.common import clock

if TYPE_CHECKING:
    from provd.consumer.progress import Progress

log = logging.getLogger("provd.consumer")

_LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"

#: Seconds between two log lines about progress, when there was some.
_LOG_EVERY_S = 10.0


class Status:
    """Tells how it goes. `update` shows a line that replaces the one before."""

    def __init__(self, update: Callable[[str], None] | None) -> None:
        """`update` is None away from a terminal."""
        self._update = update
        self._logged_at = clock.monotonic()
        self._logged: tuple[int, ...] = ()

    def on_progress(self, progress: Progress) -> None:
        """Show progress; called about twice a second."""
        if self._update is not None:
            self._update(progress_line(progress))
        elif clock.monotonic() - self._logged_at >= _LOG_EVERY_S and _counts(progress) != self._logged:
            self._logged_at, self._logged = clock.monotonic(), _counts(progress)
            log.info("progress: %s", progress_line(progress))

    def say(self, text: str) -> None:
        """Say something that stays."""
        log.warning("%s", output.printable(text))

    def finish(self, progress: Progress) -> None:
        """Say what has been done in all."""
        log.info(
            "consumer stopped: received=%d stored=%d duplicates=%d quarantined=%d spooled=%d",
            progress.received, progress.stored, progress.duplicates, progress.quarantined, progress.spooled,
        )  # fmt: skip


def progress_line(progress: Progress) -> str:
    """The live line."""
    parts = [
        progress.state,
        f"{progress.stored:,} stored ({progress.rate:,.0f}/s)",
        f"{human.many(progress.lag, 'frame')} waiting",
    ]
    for count, word in (
        (progress.quarantined, "quarantined"),
        (progress.refused, "refused"),
        (progress.spooled, "spooled"),
    ):
        if count:
            parts.append(f"{count:,} {word}")
    return " · ".join(parts)


@contextmanager
def open_status() -> Iterator[Status]:
    """Show status and log lines until the block ends."""
    logger = logging.getLogger("provd")
    with _handler() as (handler, update):
        handler.setFormatter(logging.Formatter(_LOG_FORMAT))
        former = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            yield Status(update)
        finally:
            logger.removeHandler(handler)
            logger.setLevel(former)


@contextmanager
def _handler() -> Iterator[tuple[logging.Handler, Callable[[str], None] | None]]:
    if not sys.stderr.isatty():
        yield logging.StreamHandler(sys.stderr), None
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    with console.status(Text("starting")) as live:
        yield _Above(console.print), lambda line: live.update(Text(line))


class _Above(logging.Handler):
    """Prints log lines above the live line."""

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        self._show(output.printable(self.format(record)))


def _counts(progress: Progress) -> tuple[int, ...]:
    return progress.received, progress.stored, progress.quarantined, progress.spooled
