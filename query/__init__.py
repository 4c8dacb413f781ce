"""The read side: functions that ask a store and return frozen values. Nothing here prints.

Everything is answered from the store alone; a reader needs neither Redis nor the producers.

```python
import provd

with provd.query.connect("mongodb://head/provd") as books:
    run = books.run("last")
    frame = run.tasks(where="generated.acc >= 0.9", sort="-generated.acc").to_pandas()
```

The names below are the public ones; each is loaded when it is first used.
"""

from __future__ import annotations

import sys

#: As `typing` has it, which is not needed for more.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from provd.query.connection import Connection as Connection
    from provd.query.connection import connect as connect
    from provd.query.run_view import Runs as Runs
    from provd.query.run_view import RunView as RunView
    from provd.query.task_table import Tasks as Tasks

__all__ = ["Connection", "RunView", "Runs", "Tasks", "connect"]

_HOME = {
    "Connection": "provd.query.connection",
    "RunView": "provd.query.run_view",
    "Runs": "provd.query.run_view",
    "Tasks": "provd.query.task_table",
    "connect": "provd.query.connection",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'provd.query' has no attribute {name!r}")
    __import__(_HOME[name])
    value = getattr(sys.modules[_HOME[name]], name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
