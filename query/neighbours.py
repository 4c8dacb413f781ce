"""One step of lineage: the tasks next to some tasks, by what the store keeps of them.

- A step asks a fixed number of questions for each few hundred tasks and each few hundred answers, all by index; none
  for a single task.
- A link counts while the message it was derived from is what its task's document says.
- Answers are read as they are asked for: who stops early has read little.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from provd.common import names
from provd.common.record import Record
from provd.store.interface import Store
from provd.store.links import GENERATED, TASK, USED

T = TypeVar("T")

#: The kinds of edges: who called, what was said to build on what, and who used what another made.
CALL, DEPENDENCY, VALUE = "call", "dependency", "value"
KINDS = (CALL, DEPENDENCY, VALUE)

#: Tasks, keys or ids in one question; the embedded store looks up no more than this in one.
AT_ONCE = 500

#: Tasks that a reader keeps.
_KNOWN_MAX = 5000

#: What is read of a task.
FIELDS = (
    "task_id", "workflow_id", "campaign_id", "activity_id", "status", "producer_id", "seq", "parent_task_id",
    "hostname", "started_at", "duration",
)  # fmt: skip


_LINK_FIELDS = ("task_id", "direction", "key", "producer_id", "seq")


@dataclass(frozen=True, slots=True)
class Edge:
    """From the task that came first to the task that came of it.

    `key` is that of the value, for the kind `value`; `candidates` is how many tasks are known to have generated an
    equal value: with more than one, any of them may be the one.
    """

    source: str
    target: str
    kind: str
    key: str | None = None
    candidates: int = 1


class Reader:
    """The store, and the tasks that were read of it a moment ago: most have several ways that lead to them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._known: dict[str, Record] = {}

    def by_id(self, ids: Sequence[str]) -> dict[str, Record]:
        """The tasks of these ids that the store holds, by id; not more than `AT_ONCE`."""
        if len(self._known) > _KNOWN_MAX:
            self._known = {}
        missing = [task_id for task_id in ids if task_id not in self._known]
        if missing:
            found = self.store.find(names.TASKS, {"_id": _one_of(missing)}, fields=FIELDS)
            self._known |= {task["task_id"]: task for task in found}
        return {task_id: self._known[task_id] for task_id in ids if task_id in self._known}


#: A neighbour: the edge, and the far task's record; empty where the store does not hold that task.
Neighbour = tuple[Edge, Record]


def callers(reader: Reader, tasks: Sequence[Record], kinds: Collection[str]) -> Iterator[Neighbour]:
    """What each of these tasks came of: its caller, what it builds on, and who made what it used."""
    wanted: dict[str, list[Edge]] = {}
    if CALL in kinds:
        for task in tasks:
            parent = task.get("parent_task_id")
            if isinstance(parent, str):
                wanted.setdefault(parent, []).append(Edge(parent, task["task_id"], CALL))
    used: dict[str, list[str]] = {}
    for key, task_id in _links_of(reader.store, tasks, USED) if {DEPENDENCY, VALUE} & set(kinds) else ():
        if not key.startswith(TASK):
            used.setdefault(key, []).append(task_id)
        elif DEPENDENCY in kinds:
            other = key.removeprefix(TASK)
            wanted.setdefault(other, []).append(Edge(other, task_id, DEPENDENCY))
    for some in batches(wanted, AT_ONCE):
        found = reader.by_id(some)
        for other in some:
            for edge in wanted[other]:
                yield edge, found.get(other, {})
    if VALUE in kinds:
        for key, maker in linked(reader, used, GENERATED):
            for task_id in used[key]:
                yield Edge(maker["task_id"], task_id, VALUE, key), maker


def callees(reader: Reader, tasks: Sequence[Record], kinds: Collection[str]) -> Iterator[Neighbour]:
    """What came of each of these tasks: what it called, what builds on it, and who used what it made."""
    ids = [task["task_id"] for task in tasks]
    if CALL in kinds:
        within = {
            "workflow_id": _one_of(task["workflow_id"] for task in tasks),
            "parent_task_id": {"$in": ids},
        }
        for child in reader.store.find(names.TASKS, within, fields=FIELDS):
            yield Edge(child["parent_task_id"], child["task_id"], CALL), child
    if DEPENDENCY in kinds:
        for key, user in linked(reader, [TASK + task_id for task_id in ids], USED):
            yield Edge(key.removeprefix(TASK), user["task_id"], DEPENDENCY), user
    if VALUE in kinds:
        made: dict[str, list[str]] = {}
        for key, task_id in _links_of(reader.store, tasks, GENERATED):
            made.setdefault(key, []).append(task_id)
        for key, user in linked(reader, made, USED):
            for task_id in made[key]:
                yield Edge(task_id, user["task_id"], VALUE, key), user


def linked(reader: Reader, keys: Iterable[str], direction: str) -> Iterator[tuple[str, Record]]:
    """The tasks that used, or generated, values of these keys, each with the key."""
    for some in batches(keys, AT_ONCE):
        where = {"key": _one_of(some), "direction": direction}
        links = reader.store.find(names.LINKS, where, fields=_LINK_FIELDS)
        for rows in batches(links, AT_ONCE):
            found = reader.by_id(list(dict.fromkeys(link["task_id"] for link in rows)))
            for link in rows:
                task = found.get(link["task_id"], {})
                if _stands(link, task):
                    yield link["key"], task


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of so many items each, and a shorter one at the end."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def _links_of(store: Store, tasks: Sequence[Record], direction: str) -> Iterator[tuple[str, str]]:
    """The keys that tasks used, or generated, each with the task's id."""
    by_id = {task["task_id"]: task for task in tasks}
    where = {
        "workflow_id": _one_of(task["workflow_id"] for task in tasks),
        "task_id": _one_of(by_id),
        "direction": direction,
    }
    for link in store.find(names.LINKS, where, fields=_LINK_FIELDS):
        if _stands(link, by_id[link["task_id"]]):
            yield link["key"], link["task_id"]


def _stands(link: Mapping[str, Any], task: Mapping[str, Any]) -> bool:
    """Whether the message that a link is of is what its task's document says."""
    return bool(link["producer_id"] == task.get("producer_id") and link["seq"] == task.get("seq"))


def _one_of(items: Iterable[str]) -> str | dict[str, list[str]]:
    """The condition for any of these; for one alone, the simple one, which finds its index at once."""
    found = list(dict.fromkeys(items))
    return found[0] if len(found) == 1 else {"$in": found}
