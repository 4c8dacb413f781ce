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

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from provd.producer.arguments import add_arguments as add_arguments
    from provd.producer.context import wrap as wrap
    from provd.producer.loop import loop as loop
    from provd.producer.objects import register as register
    from provd.producer.process import flush as flush
    from provd.producer.task import Task as Task
    from provd.producer.task import task as task
    from provd.producer.workflow import workflow as workflow
    from provd.query.jsonl import read_jsonl as read_jsonl

__version__ = "0.1.0"

__all__ = [
    "Task",
    "__version__",
    "add_arguments",
    "flush",
    "loop",
    "read_jsonl",
    "register",
    "task",
    "workflow",
    "wrap",
]

_HOME = {
    "Task": "provd.producer.task",
    "add_arguments": "provd.producer.arguments",
    "flush": "provd.producer.process",
    "loop": "provd.producer.loop",
    "read_jsonl": "provd.query.jsonl",
    "register": "provd.producer.objects",
    "task": "provd.producer.task",
    "workflow": "provd.producer.workflow",
    "wrap": "provd.producer.context",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'provd' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
