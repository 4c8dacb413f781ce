"""Links: which values that can be followed a task used, and which it generated.

- A link is derived from one message about a task, and says which: it counts while that message is what the task's
  document says. So links are only ever added, in any order and any number of times, and a reader never sees one of a
  message that another has replaced.
- Equal keys are one value: a file by path and checksum (or size and time of change), an object of a process by its
  number and version, a declared key within its campaign (or its workflow, where there is none). A dependency that the
  program states is a link to the other task.
- A task without such values costs one look at the types of its values.

| key                                  | of                                                    |
|--------------------------------------|-------------------------------------------------------|
| `file:<checksum or size@time>:<path>`| `{"type": "provd.File", "path", "size", "sha256"}`    |
| `key:<scope>:<key>`                  | `{"type": "provd.Key", "key"}`                        |
| `object:<producer>#<number>@<version>`| `{"type", "object", "version"}`                      |
| `task:<task id>`                     | `depends_on`                                          |
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from provd.common.record import Message, Record
from provd.common.values import is_unicode

USED = "used"
GENERATED = "generated"

#: What the keys of links begin with.
FILE, KEY, OBJECT, TASK = "file:", "key:", "object:", "task:"

#: Characters of a path, key or id that stand in a link's key; a longer one is told by its checksum.
_TEXT_MAX = 400

_CONTAINERS = frozenset({dict, list, tuple})
_OBJECT = re.compile(r"[0-9a-z]{22}#[0-9]{1,19}")
_CHECKSUM = re.compile(r"[0-9a-f]{64}")
_MARKS = frozenset({"type", "path", "key", "object"})


def links_of(messages: Iterable[Message]) -> list[Record]:
    """The documents about the links of tasks."""
    found: list[Record] = []
    for message in messages:
        record = message.record
        used, generated = _marked(record.get(USED)), _marked(record.get(GENERATED))
        if used or generated or "depends_on" in record:
            found += _derived(message, used, generated)
    return found


def followed(record: Record) -> Iterator[tuple[str, str, Record]]:
    """The values of a task's document that can be followed: direction, key, and what was recorded; each key once."""
    scope = _scope(record, record["workflow_id"])
    for direction in (USED, GENERATED):
        seen = set()
        for said in _marked(record.get(direction)):
            key = _key(said, scope)
            if key is not None and key not in seen:
                seen.add(key)
                yield direction, key, said


def _marked(values: Any) -> Sequence[dict[Any, Any]]:
    """What is inside a value, however deep, and looks as if it could be followed."""
    if type(values) is not dict or _CONTAINERS.isdisjoint(map(type, values.values())):
        return ()
    found = []
    waiting: list[Any] = [values]
    for value in waiting:
        items = value
        if type(value) is dict:
            items = value.values()
            if "type" in value and not _MARKS.isdisjoint(value):
                found.append(value)
        if not _CONTAINERS.isdisjoint(map(type, items)):
            waiting += [item for item in items if type(item) in _CONTAINERS]
    return found


def _derived(
    message: Message, used: Sequence[dict[Any, Any]], generated: Sequence[dict[Any, Any]]
) -> Iterator[Record]:
    scope = _scope(message.record, message.workflow_id)
    keys = [*_dependencies(message.record), *(_key(said, scope) for said in used)]
    for direction, all_keys in ((USED, keys), (GENERATED, [_key(said, scope) for said in generated])):
        for key in dict.fromkeys(all_keys):
            if key is not None:
                yield _document(message, direction, key)


def _dependencies(record: Record) -> Iterator[str]:
    stated = record.get("depends_on")
    for task in stated if isinstance(stated, list) else ():
        if isinstance(task, str):
            yield TASK + _fitted(task)


def _scope(record: Record, workflow_id: str) -> str:
    """Where a declared key means one value."""
    campaign_id = record.get("campaign_id")
    return f"campaign/{_fitted(campaign_id)}" if campaign_id else f"workflow/{workflow_id}"


def _key(said: dict[Any, Any], scope: str) -> str | None:
    """The key of one recorded value; None where it cannot be followed."""
    if said["type"] == "provd.File":
        path, state = said.get("path"), _state(said)
        return file_key(state, path) if isinstance(path, str) and state else None
    if said["type"] == "provd.Key":
        key = said.get("key")
        return f"{KEY}{scope}:{_fitted(key)}" if isinstance(key, str) else None
    which, version = said.get("object"), said.get("version")
    if _is_count(version) and isinstance(which, str) and _OBJECT.fullmatch(which):
        return f"{OBJECT}{which}@{version}"
    return None


def file_key(state: str, path: str) -> str:
    """The key of a file: its checksum, or size and time of change, and its absolute path."""
    return f"{FILE}{state}:{_fitted(path)}"


def _state(said: dict[Any, Any]) -> str | None:
    """What tells a file from the same file before and after."""
    checksum, size, modified = said.get("sha256"), said.get("size"), said.get("modified_ns")
    if isinstance(checksum, str):
        return checksum if _CHECKSUM.fullmatch(checksum) else None
    return f"{size}@{modified}" if _is_count(size) and _is_count(modified) else None


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _fitted(text: str) -> str:
    """Text that an index can hold: long text, and text that is not UTF-8, by its checksum."""
    if len(text) <= _TEXT_MAX and "\0" not in text and is_unicode(text):
        return text
    return "sha256=" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _document(message: Message, direction: str, key: str) -> Record:
    which = hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
    place = f"{message.producer_id}/{message.workflow_id}/{message.seq}"
    document: Record = {
        "_id": f"{place}/{direction[0]}{which}",
        "workflow_id": message.workflow_id,
        "task_id": message.record["task_id"],
        "direction": direction,
        "key": key,
        "producer_id": message.producer_id,
        "seq": message.seq,
    }
    tenant_id = message.record.get("tenant_id")
    if isinstance(tenant_id, str):
        document["tenant_id"] = _fitted(tenant_id)
    return document
