"""Freezing a consumer's process (SIGSTOP) at a moment that is known."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.integration.feeder import Feeder
from tests.services.child import Child
from tests.services.waiting import wait_until


def freeze(process: Child) -> None:
    """Stop a process, and return when it has stopped; SIGCONT thaws it."""
    process.send(signal.SIGSTOP)
    wait_until(lambda: _state_of(process) == "T")


def freeze_with_frames_in_hand(consumer: Child, feeder: Feeder) -> int:
    """Freeze a consumer that is at work, at a moment when it holds frames; returns how many."""
    held = 0

    def holds() -> bool:
        nonlocal held
        freeze(consumer)
        feeder.client.ping()  # Redis has then heard all that was said to it before
        held = feeder.pending()
        if not held:
            consumer.send(signal.SIGCONT)
        return held > 0

    wait_until(holds, 20)
    return held


def _state_of(process: Child) -> str:
    """The kernel's letter for a process: T is stopped."""
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
