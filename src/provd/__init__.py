"""provd: a distributed provenance collector for HPC and machine-learning campaigns.

```python
import provd

@provd.task
def train(lr, epochs): ...

with provd.workflow("sweep", campaign_id="exp42"):
    train(0.1, 3)
```

The names below are the public ones; each is loaded when it is first used.
"""

from __future__ import annotations

import sys

#: As `typing` has it, which is not needed for more.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from provd import query as query
    from provd.producer.arguments import add_arguments as add_arguments
    from provd.producer.context import wrap as wrap
    from provd.producer.counting import count as count
    from provd.producer.dependencies import current_task_id as current_task_id
    from provd.producer.dependencies import depends_on as depends_on
    from provd.producer.entities import File as File
    from provd.producer.entities import Key as Key
    from provd.producer.loop import loop as loop
    from provd.producer.objects import register as register
    from provd.producer.process import flush as flush
    from provd.producer.task import Task as Task
    from provd.producer.task import task as task
    from provd.producer.workflow import workflow as workflow
    from provd.query.jsonl import read_jsonl as read_jsonl

__version__ = "0.1.0"

__all__ = [
    "File",
    "Key",
    "Task",
    "__version__",
    "add_arguments",
    "count",
    "current_task_id",
    "depends_on",
    "flush",
    "loop",
    "query",
    "read_jsonl",
    "register",
    "task",
    "workflow",
    "wrap",
]

_HOME = {
    "File": "provd.producer.entities",
    "Key": "provd.producer.entities",
    "Task": "provd.producer.task",
    "add_arguments": "provd.producer.arguments",
    "count": "provd.producer.counting",
    "current_task_id": "provd.producer.dependencies",
    "depends_on": "provd.producer.dependencies",
    "flush": "provd.producer.process",
    "loop": "provd.producer.loop",
    "query": "provd.query",
    "read_jsonl": "provd.query.jsonl",
    "register": "provd.producer.objects",
    "task": "provd.producer.task",
    "workflow": "provd.producer.workflow",
    "wrap": "provd.producer.context",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'provd' has no attribute {name!r}")
    home = _HOME[name]
    __import__(home)
    value = sys.modules[home] if home == f"provd.{name}" else getattr(sys.modules[home], name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
