"""The task that a file's name means: the one that generated it.

- A file that is here is told by what is in it: of the tasks that wrote to this path, it is the one that left it so.
- One that is not here, or has changed since, is told by its path alone. That looks at all files that are known.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Sequence

from provd.common import names
from provd.common.errors import Ambiguous, NotFound
from provd.common.files import open_regular
from provd.common.record import Record
from provd.query.neighbours import Reader, linked
from provd.store.interface import Store
from provd.store.links import FILE, GENERATED, USED, file_key

#: Larger files are recorded by size and time of change, unless the program said otherwise.
_CHECKSUM_MAX = 256 << 20

_BLOCK = 1 << 20

#: States of one path that are looked at, and tasks that an error lists.
_STATES_MAX = 10_000
_LISTED = 10


def looks_like_file(text: str) -> bool:
    """Whether this is a path and no id: ids have no dots and slashes."""
    return os.sep in text or "." in text or os.path.isfile(text)


def find_maker(store: Store, path: str) -> str:
    """The id of the task that generated this file. Raises `Ambiguous` and `NotFound` that list tasks."""
    path = os.path.abspath(path)
    here = _keys_here(path)
    made = _tasks(store, here, GENERATED) or _tasks(store, _keys_of_path(store, path, GENERATED), GENERATED)
    if len(made) == 1:
        return str(made[0]["task_id"])
    if made:
        count = f"{len(made):,}" + (" or more" if len(made) >= _STATES_MAX else "")
        raise Ambiguous(f"{count} tasks generated {path}; give the id of one:\n{_listed(made)}")
    used = _tasks(store, here, USED) or _tasks(store, _keys_of_path(store, path, USED), USED)
    if used:
        raise NotFound(f"no task generated {path}; give the id of one that used it:\n{_listed(used)}")
    raise NotFound(f"no task generated or used {path}")


def _tasks(store: Store, keys: Sequence[str], direction: str) -> list[Record]:
    """The latest first."""
    found = {task["task_id"]: task for _, task in linked(Reader(store), keys, direction)} if keys else {}
    return [found[task_id] for task_id in sorted(found, reverse=True)]


def _listed(tasks: Sequence[Record]) -> str:
    lines = [
        "  ".join(str(task[field]) for field in ("task_id", "workflow_id", "activity_id") if field in task)
        for task in tasks[:_LISTED]
    ]
    more = [f"and {len(tasks) - _LISTED:,} more"] if len(tasks) > _LISTED else []
    return "\n".join(f"  {line}" for line in [*lines, *more])


def _keys_here(path: str) -> list[str]:
    """What the file is known by as it is now; nothing where it is not here."""
    try:
        with open_regular(path) as file:
            facts = os.fstat(file.fileno())
            states = [f"{facts.st_size}@{facts.st_mtime_ns}"]
            if stat.S_ISREG(facts.st_mode) and facts.st_size <= _CHECKSUM_MAX:
                digest = hashlib.sha256()
                while block := file.read(_BLOCK):
                    digest.update(block)
                states.append(digest.hexdigest())
    except OSError:
        return []
    return [file_key(state, path) for state in states]


def _keys_of_path(store: Store, path: str, direction: str) -> list[str]:
    tail = file_key("", path).removeprefix(FILE)
    wanted = {"direction": direction, "key": {"$regex": f"^{FILE}[^:]*{re.escape(tail)}$"}}
    found = store.find(names.LINKS, wanted, fields=("key",), limit=_STATES_MAX)
    return list(dict.fromkeys(link["key"] for link in found))
