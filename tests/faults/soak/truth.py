"""The stored tasks of a workflow held against the diaries of those who did the work.

- Every mark in a diary is in the store exactly once, made by the diary's producer, with the right values below the
  right parent.
- What is in the store and in no diary was in the hands of a producer when it was ended by a signal.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.faults.soak.diaries import Stint
from tests.faults.soak.program import INSIDE, REFUSED, STEPS, TURNS

#: Faults of one sort that are named; there may be a million.
_NAMED = 5

#: Calls that may have ended without a line in the diary, when the signal came between the two.
_UNWRITTEN = 1

#: Calls that may have been announced, because they took a second, and never ended: a step, the turn around it, the work.
_UNENDED = 3

#: What is read of a stored task.
FIELDS = (
    "activity_id", "subtype", "used", "generated", "status", "stderr", "parent_task_id", "producer_id", "seq",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Found:
    """A stored task, as far as it matters here."""

    mark: int
    task_id: str
    parent: str | None


class Truth:
    """Compares; `complaints` is empty when the store says what the diaries say."""

    def __init__(self, stints: Iterable[Stint], *, interrupted: Collection[Stint]) -> None:
        """`stints` are those of one workflow; `interrupted` were ended by a signal."""
        self._stints = {stint.producer_id: stint for stint in stints if stint.producer_id is not None}
        self._interrupted = {stint.producer_id for stint in interrupted}
        self._found: dict[str, list[_Found]] = defaultdict(list)
        self._unended: dict[str, list[_Found]] = defaultdict(list)
        self._shifts: dict[str, dict[str, int]] = defaultdict(dict)
        self._open_shifts: dict[str, int] = defaultdict(int)
        self._seqs: dict[str, list[int]] = defaultdict(list)
        self._complaints: dict[str, list[str]] = defaultdict(list)
        self.tasks = 0

    def read(self, tasks: Iterable[Mapping[str, Any]]) -> None:
        """Take in the stored tasks."""
        for task in tasks:
            self.tasks += 1
            producer_id = str(task["producer_id"])
            self._seqs[producer_id].append(task["seq"])
            if producer_id not in self._stints:
                self._complain("made by a producer that has no diary", task["_id"])
            elif task["activity_id"] == "shift":
                self._read_shift(producer_id, task)
            else:
                self._read_unit_task(producer_id, task)

    def complaints(self) -> list[str]:
        """Everything that is not as it should be, each sort with a few examples."""
        for producer_id, stint in self._stints.items():
            self._compare(producer_id, stint)
        return [
            f"{len(examples)} x {sort}: {', '.join(examples[:_NAMED])}"
            for sort, examples in sorted(self._complaints.items())
        ]

    # --- one task ---

    def _read_shift(self, producer_id: str, task: Mapping[str, Any]) -> None:
        if task["status"] == "RUNNING":
            self._open_shifts[producer_id] += 1
        elif task["status"] != "FINISHED":
            self._complain(f"shift that is {task['status']}", task["_id"])
        self._shifts[producer_id][str(task["_id"])] = int(task["used"]["ceiling"])

    def _read_unit_task(self, producer_id: str, task: Mapping[str, Any]) -> None:
        mark = int(task["used"]["mark"])
        found = _Found(mark, str(task["_id"]), task.get("parent_task_id"))
        if producer_id in self._interrupted and _was_cut_off(task):
            self._unended[producer_id].append(found)
            return
        if _facts(task) != _expected(self._stints[producer_id].lane, mark):
            self._complain("with other values than it was made with", f"{task['_id']} {_facts(task)}")
        self._found[producer_id].append(found)

    # --- one producer ---

    def _compare(self, producer_id: str, stint: Stint) -> None:
        who = f"{stint.lane}-{stint.number} ({producer_id})"
        ids: dict[int, str] = {}
        for found in self._found[producer_id]:
            if found.mark in ids:
                self._complain("stored twice", f"{who} mark {found.mark}")
            ids[found.mark] = found.task_id
        written = set(stint.marks())
        for mark in sorted(written - ids.keys()):
            self._complain("in a diary and not in the store", f"{who} mark {mark}")
        unwritten = ids.keys() - written
        if len(unwritten) > (_UNWRITTEN if producer_id in self._interrupted else 0):
            self._complain("in the store and in no diary", f"{who} marks {sorted(unwritten)[:_NAMED]}")
        unended = self._unended[producer_id]
        if len(unended) > _UNENDED:
            self._complain("begun by an ended producer", f"{who} marks {[found.mark for found in unended]}")
        self._compare_parents(who, producer_id, {found.mark: found.task_id for found in unended} | ids)
        self._compare_shifts(who, producer_id, stint)
        seqs = self._seqs[producer_id]
        if len(set(seqs)) != len(seqs):
            self._complain("producers with two tasks of one number", who)

    def _compare_parents(self, who: str, producer_id: str, ids: Mapping[int, str]) -> None:
        last_unit = max(ids, default=0) // 10
        for found in self._found[producer_id]:
            above = _mark_above(found.mark)
            if above is None:
                if found.parent not in self._shifts[producer_id] and not self._may_lack(producer_id):
                    self._complain("below no shift", f"{who} mark {found.mark}")
            elif above in ids:
                if found.parent != ids[above]:
                    self._complain("below a wrong parent", f"{who} mark {found.mark}")
            elif found.mark // 10 != last_unit or not self._may_lack(producer_id):
                self._complain("whose parent is not stored", f"{who} mark {found.mark}")

    def _compare_shifts(self, who: str, producer_id: str, stint: Stint) -> None:
        written, stored = stint.shifts(), list(self._shifts[producer_id].values())
        missing = sorted(set(written) - set(stored))
        if missing or len(set(stored)) != len(stored):
            self._complain("shifts missing or stored twice", f"{who} {missing}")
        unwritten = len(set(stored) - set(written))
        allowed = 1 if producer_id in self._interrupted else 0
        if unwritten > allowed or self._open_shifts[producer_id] > allowed:
            self._complain("shifts that nobody worked", who)

    def _may_lack(self, producer_id: str) -> bool:
        """Whether what encloses the last calls of this producer may never have ended."""
        return producer_id in self._interrupted

    def _complain(self, sort: str, example: object) -> None:
        self._complaints[sort].append(str(example))


def _was_cut_off(task: Mapping[str, Any]) -> bool:
    """Whether it was going on as the signal came: announced only, or closed by the goodbye that followed."""
    return task["status"] == "RUNNING" or (task["status"], task.get("stderr")) == (
        "CANCELLED",
        "ended by SIGTERM",
    )


def _mark_above(mark: int) -> int | None:
    """The mark of the task that this one lies below; None for one that lies below a shift."""
    slot = mark % 10
    if slot == 0:
        return None
    return mark - INSIDE if slot - INSIDE in TURNS else mark - slot


def _facts(task: Mapping[str, Any]) -> tuple[Any, ...]:
    used = dict(task["used"])
    used.pop("i", None)  # of an iteration: which one it is
    return task["activity_id"], used, task.get("generated", {}), task["status"], task.get("stderr")


def _expected(lane: str, mark: int) -> tuple[Any, ...]:
    slot = mark % 10
    used = {"lane": lane, "mark": mark}
    if slot == 0:
        return "work", used, {}, "FINISHED", None
    if slot == REFUSED:
        return "refuse", used, {}, "ERROR", f"ValueError: mark {mark}"
    if slot in TURNS:
        return "turn", {"mark": mark}, {}, "FINISHED", None
    assert slot in STEPS or slot - INSIDE in TURNS
    return "step", used, {"square": mark * mark}, "FINISHED", None


def read_tasks(collection: Any, workflow_id: str) -> Iterator[Mapping[str, Any]]:
    """The tasks of a workflow, straight from MongoDB: a copy under another `_id` must not go unseen."""
    yield from collection.find({"workflow_id": workflow_id}, dict.fromkeys(FIELDS, 1), batch_size=5000)
