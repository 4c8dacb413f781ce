"""What `provd doctor` finds: one result per question, with the fix where something is not as it should be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from provd.cli.exits import DONE, FAILED, UNREACHABLE
from provd.common.record import Record


class Level(str, Enum):
    """How good an answer is."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    #: A service that did not answer: failed, and asking later may help.
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Check:
    """One question and its answer; `fix` says what to do when the level is not `ok`."""

    subject: str
    level: Level
    finding: str
    fix: str = ""

    def to_document(self) -> Record:
        """The check as JSON has it."""
        document = {
            "check": self.subject,
            "level": self.level.value,
            "finding": self.finding,
            "fix": self.fix,
        }
        return {key: value for key, value in document.items() if value}


def judge(subject: str, good: bool, finding: str, *, fix: str, otherwise: Level = Level.WARNING) -> Check:
    """A check that is `ok` when `good`, else of the level `otherwise` with its fix."""
    return Check(subject, Level.OK, finding) if good else Check(subject, otherwise, finding, fix)


def exit_status_of(checks: Sequence[Check]) -> int:
    """The exit status that tells of all results."""
    levels = {check.level for check in checks}
    if Level.UNREACHABLE in levels:
        return UNREACHABLE
    return FAILED if Level.FAILED in levels else DONE
