"""A figure: what was measured, beside what, and whether it reaches its target."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from statistics import median


class Form(Enum):
    """How long a measurement may take."""

    QUICK = "quick"
    FULL = "full"
    NIGHTLY = "nightly"


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on the ratio (ours to theirs), or on our figure itself where there is nothing beside it."""

    most: float | None = None
    least: float | None = None

    def is_met(self, value: float) -> bool:
        """Whether a value is within the bound."""
        return (self.most is None or value <= self.most) and (self.least is None or value >= self.least)

    def __str__(self) -> str:
        return f"<= {self.most:g}" if self.most is not None else f">= {self.least:g}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table.

    `ours` and `theirs` are samples of interleaved runs, of the same length, in `unit`; `theirs` is empty where the
    target is on our figure itself.
    """

    what: str
    unit: str
    ours: tuple[float, ...]
    against: str = ""
    theirs: tuple[float, ...] = ()
    #: None where there is nothing to reach.
    target: Target | None = None
    #: What a reader must know to read it right: sizes, how it was counted.
    note: str = ""

    @property
    def value(self) -> float:
        """The median of our samples."""
        return median(self.ours)

    @property
    def peer(self) -> float | None:
        """The median of the other's samples."""
        return median(self.theirs) if self.theirs else None

    @property
    def ratio(self) -> float | None:
        """Ours to theirs: the median of the ratios of runs that were neighbours, which share the machine's mood."""
        if not self.theirs:
            return None
        return median(ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True))

    @property
    def is_met(self) -> bool | None:
        """Whether the target is reached; None where there is none."""
        if self.target is None:
            return None
        return self.target.is_met(self.value if self.ratio is None else self.ratio)
