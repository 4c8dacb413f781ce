"""Failed tasks in groups of the same failure, however many there are.

- A group is an activity, a type of exception, and the line that raised it. Where no traceback tells the line, it is the
  message without what differs from task to task: numbers, ids, paths and what is quoted.
- Different types of exception are never in one group.
- Every failure is counted. Only so many groups are kept; what would be one more counts as other.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from provd.query.failure import Failure

#: Groups kept that have a line of code, and as many again that have only a message.
GROUPS_MAX = 500

NO_MESSAGE = Failure("(no message)")

#: Activity, type, line of code, message.
_Key: TypeAlias = tuple[str, str, str, str]

#: What differs from task to task; a status or a signal tells failures apart.
_VARIES = re.compile(
    r"""(?P<kept>\b(?:status|code|signal|errno)\W{0,3}\d+)
    | (?<!\w)(['"`]).*?\2(?!\w)                                 # what is quoted
    | (?<![\w.~-])[\w.~-]*/[^\s'",;:)]+                         # a path
    | \b0x[0-9a-f]+\b
    | \b(?=[a-f-]{0,12}\d)[0-9a-f]{8,}(?:-[0-9a-f]{4,})*\b     # an id
    | \d+(?:\.\d+)?(?:e[+-]?\d+)?
    """,
    re.IGNORECASE | re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Tasks that failed alike: how many, the first of them, and how that one failed."""

    activity_id: str
    count: int
    task_id: str
    failure: Failure


class FailureGroups:
    """Groups, filled task by task."""

    def __init__(self) -> None:
        self._counts: Counter[_Key] = Counter()
        self._first: dict[_Key, tuple[str, Failure]] = {}
        self._kept: Counter[bool] = Counter()
        self.others = 0

    def add(self, activity_id: str, task_id: str, failure: Failure | None) -> None:
        """Count a task."""
        failure = failure or NO_MESSAGE
        key = _key(activity_id, failure)
        first = self._first.get(key)
        if first is None:
            by_line = failure.frame is not None
            if self._kept[by_line] == GROUPS_MAX:
                self.others += 1
                return
            self._kept[by_line] += 1
        if first is None or task_id < first[0]:
            self._first[key] = task_id, failure
        self._counts[key] += 1

    def __iter__(self) -> Iterator[FailureGroup]:
        """The most frequent first."""
        for key, count in sorted(self._counts.items(), key=lambda item: (-item[1], item[0])):
            yield FailureGroup(key[0], count, *self._first[key])


def _key(activity_id: str, failure: Failure) -> _Key:
    exception = failure.exception or ""
    if failure.frame is not None:
        return activity_id, exception, failure.frame, ""
    return activity_id, exception, "", _common(failure.headline, exception)


def _common(headline: str, exception: str) -> str:
    """What such messages have in common."""
    text = headline.removeprefix(exception).lstrip(": ")
    return text if text.isdecimal() else _VARIES.sub(lambda part: part["kept"] or "…", text)
