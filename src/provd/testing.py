"""For tests of instrumented code: what a block records, without any service.

```python
from provd.testing import captured

def test_training_is_recorded():
    with captured() as capture, provd.workflow("test"):
        train(0.1, epochs=3)

    (task,) = capture.tasks("train")
    assert task["generated"]["loss"] < 1
```
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from provd.common.record import Kind, Message, Record
from provd.common.settings import Settings
from provd.common.spool import read_spool, spool_files
from provd.producer.process import replaced_producer

__all__ = ["Captured", "captured"]


@dataclass(slots=True)
class Captured:
    """What was recorded, in the order it was said; filled when the block has ended."""

    messages: list[Message] = field(default_factory=list)

    def tasks(self, activity: str | None = None) -> list[Record]:
        """Records of tasks that have ended, of one activity or of all. Times are UTC milliseconds."""
        return [
            record
            for record in self._records(Kind.TASK)
            if record["status"] != "RUNNING" and activity in (None, record["activity_id"])
        ]

    def workflows(self) -> list[Record]:
        """The last record of each workflow."""
        return list({record["workflow_id"]: record for record in self._records(Kind.WORKFLOW)}.values())

    def producers(self) -> list[Record]:
        """The last record of each process in each workflow: what it counted, how it ended."""
        records = {
            (record["producer_id"], record["workflow_id"]): record for record in self._records(Kind.PRODUCER)
        }
        return list(records.values())

    def _records(self, kind: Kind) -> list[Record]:
        return [message.record for message in self.messages if message.kind is kind]


@contextmanager
def captured() -> Iterator[Captured]:
    """Keep what the block records, whatever the environment says; nothing reaches a service or outlives the block."""
    capture = Captured()
    with tempfile.TemporaryDirectory(prefix="provd-testing-") as folder:
        settings = Settings(broker_url=f"file://{folder}", spool_free_floor=0.0)
        with replaced_producer(settings):
            yield capture
        for file in spool_files([Path(folder)], with_open=True):
            lines = read_spool(file)
            capture.messages += [line.message for line in lines if line.message is not None]
    capture.messages.sort(key=lambda message: (message.workflow_id, message.producer_id, message.seq))
