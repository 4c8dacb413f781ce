"""What the producers wrote down by themselves: the truth that the store is held against.

- A mark stands in a diary only after its call has returned. A killed producer has at most made what it was in the
  middle of without writing it down.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.faults.soak.program import MARK_BYTES


@dataclass(frozen=True, slots=True)
class Stint:
    """The life of one producer process: a lane's work from one unit on."""

    workflow_id: str
    lane: str
    number: int
    folder: Path
    first_unit: int

    @property
    def producer_id(self) -> str | None:
        """Who it was, once it has said so."""
        try:
            return (self.folder / "who").read_text(encoding="ascii") or None
        except FileNotFoundError:
            return None

    @property
    def count(self) -> int:
        """Marks so far; cheap enough to be asked all the time."""
        try:
            return (self.folder / "marks").stat().st_size // MARK_BYTES
        except FileNotFoundError:
            return 0

    @property
    def next_unit(self) -> int:
        """The first unit that is not wholly done."""
        marks = self.marks()
        # The mark of a unit's slot 0 is its last.
        return marks[-1] // 10 + (marks[-1] % 10 == 0) if marks else self.first_unit

    def marks(self) -> list[int]:
        """Every mark, in the order in which they were made."""
        return _numbers(self.folder / "marks")

    def shifts(self) -> list[int]:
        """The ceilings of the shifts that have ended."""
        return _numbers(self.folder / "shifts")


def _numbers(path: Path) -> list[int]:
    try:
        return [int(line) for line in path.read_bytes().splitlines()]
    except FileNotFoundError:
        return []
