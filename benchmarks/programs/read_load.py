"""Fill a store with finished runs, as the consumer would leave them: its documents, its books, its indexes.

The argument is one JSON object: `url` of a store whose schema is there, the `runs` to make as [first, last), and the
`tasks` in each. Prints how long it took.

Documents are made by the store's own code, and go in without the consumer between: what is measured is reading.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

from provd.common import clock, ids
from provd.common.ranges import Ranges
from provd.common.record import Kind, Message, Status
from provd.store.interface import Beat, ConsumerMark, Store, Stored
from provd.store.open import open_store

#: 2026-11-01T00:00:00Z, where the first run begins; each later one begins ten minutes after the one before.
_START_MS = 1_793_491_200_000
_APART_MS = 600_000
_RECEIVED_MS = _START_MS + 365 * 24 * 3600 * 1000

_PRODUCERS = 8
_AT_ONCE = 5_000

#: Activity, its share of the tasks, and the middle of its durations in seconds.
_ACTIVITIES = (
    ("load", 0.1, 0.02),
    ("train_step", 0.5, 0.8),
    ("evaluate", 0.25, 0.3),
    ("save", 0.1, 0.05),
    ("report", 0.05, 4.0),
)
_STATUSES = (
    (Status.FINISHED, 0.96),
    (Status.ERROR, 0.03),
    (Status.CANCELLED, 0.005),
    (Status.SKIPPED, 0.005),
)
_MESSAGES = (
    "ValueError: loss is nan",
    "RuntimeError: CUDA out of memory: tried to allocate 2.00 GiB",
    "OSError: [Errno 122] Disk quota exceeded",
    "TimeoutError: no answer from the data server",
)
_TRACEBACK = "Traceback (most recent call last):\n" + "".join(
    f'  File "/home/ada/exp/train.py", line {line}, in step_{line}\n    return step_{line + 1}(batch, lr=lr)\n'
    for line in range(40, 48)
)  # fmt: skip


class Run:
    """One finished run of eight producers: the same for the same number."""

    def __init__(self, number: int, tasks: int) -> None:
        self.number = number
        self.tasks = tasks
        self._chance = random.Random(number)
        self.workflow_id = "".join(self._chance.choices("0123456789abcdefghjkmnpqrstvwxyz", k=16))
        self.campaign_id = f"campaign{number // 20:02d}"
        self.started_at = _START_MS + number * _APART_MS
        self.producers = [
            f"{ids.new_producer_id()[:10]}{''.join(self._chance.choices('0123456789abcdefghjkmnpqrstvwxyz', k=12))}"
            for _ in range(_PRODUCERS)
        ]
        self._sent = dict.fromkeys(self.producers, 0)
        #: Milliseconds between two tasks: a run takes nine minutes, however many there are.
        self._apart = 540_000 / max(1, tasks)

    def messages(self) -> Iterator[Message]:
        """All that was said of it but the goodbyes: first the producers and the run, then its tasks in order of time."""
        for rank, producer in enumerate(self.producers):
            hello = {
                "status": "RUNNING",
                "started_at": self.started_at,
                "rank": rank,
                "world_size": _PRODUCERS,
            }
            yield self._message(Kind.PRODUCER, producer, hello)
        yield self._message(Kind.WORKFLOW, self.producers[0], self._workflow())
        activities = self._chance.choices(
            _ACTIVITIES, weights=[share for _, share, _ in _ACTIVITIES], k=self.tasks
        )
        statuses = self._chance.choices(
            [status for status, _ in _STATUSES], weights=[share for _, share in _STATUSES], k=self.tasks
        )
        for number, ((activity, _, middle), status) in enumerate(zip(activities, statuses, strict=True)):
            producer = self.producers[number % _PRODUCERS]
            yield self._message(Kind.TASK, producer, self._task(number, activity, middle, status))

    def goodbyes(self) -> Iterator[Message]:
        """What the producers say last."""
        for rank, producer in enumerate(self.producers):
            ended = len(range(rank, self.tasks, _PRODUCERS))
            yield self._message(
                Kind.PRODUCER,
                producer,
                {
                    "status": "FINISHED", "started_at": self.started_at, "closed_at": self.started_at + 541_000,
                    "rank": rank, "world_size": _PRODUCERS, "sent": self._sent[producer] + 1,
                    "tasks_started": ended, "tasks_ended": ended,
                },
            )  # fmt: skip

    def books(self) -> Iterator[Stored]:
        """The ledger, compacted, once all has been said."""
        return (Stored(producer, self.workflow_id, 1, sent) for producer, sent in self._sent.items())

    def beats(self) -> Iterator[Beat]:
        """Each producer's last sign of life."""
        for rank, producer in enumerate(self.producers):
            ended = len(range(rank, self.tasks, _PRODUCERS))
            yield Beat(
                producer, self.workflow_id, self.started_at + 541_000, self._sent[producer], ended, ended,
                Ranges(), Ranges(),
            )  # fmt: skip

    def _workflow(self) -> dict[str, Any]:
        return {
            "name": f"sweep-{self.number % 25:02d}", "status": "FINISHED", "started_at": self.started_at,
            "ended_at": self.started_at + 540_500, "duration": 540.5, "user": "ada", "cwd": "/home/ada/exp",
            "argv": ["python", "sweep.py", "--seed", str(self.number)], "args": {"seed": self.number, "lr": 0.1},
            "code": {"commit": "0123456789abcdef0123456789abcdef01234567", "branch": "main", "dirty": False},
            "environment": {"python": "3.11.7", "scheduler": {"name": "slurm", "job_id": str(self.number)}},
        }  # fmt: skip

    def _task(self, number: int, activity: str, middle: float, status: Status) -> dict[str, Any]:
        producer = self.producers[number % _PRODUCERS]
        started_at = self.started_at + int(number * self._apart)
        duration = self._chance.lognormvariate(0.0, 0.5) * middle
        task: dict[str, Any] = {
            "task_id": ids.task_id(producer, number // _PRODUCERS),
            "activity_id": activity,
            "status": status.value,
            "started_at": started_at,
            "ended_at": started_at + round(duration * 1000),
            "duration": duration,
            "used": {"lr": 0.1, "epoch": number % 50, "optimizer": "adam", "batch": number},
        }
        if status is Status.FINISHED:
            task["generated"] = {"loss": 1 / (number + 1), "steps": number}
        elif status is Status.ERROR:
            message = _MESSAGES[number % len(_MESSAGES)]
            task["stderr"] = message
            task["traceback"] = f"{_TRACEBACK}{message}\n"
        return task

    def _message(self, kind: Kind, producer: str, record: dict[str, Any]) -> Message:
        self._sent[producer] += 1
        rank = self.producers.index(producer)
        common = {
            "workflow_id": self.workflow_id, "campaign_id": self.campaign_id, "producer_id": producer,
            "seq": self._sent[producer], "hostname": f"node{rank // 4:02d}", "pid": 4000 + rank,
            "schema_version": 1,
        }  # fmt: skip
        return Message(kind, producer, self.workflow_id, self._sent[producer], common | record)


def _load_mongo(store: Any, messages: Iterator[Message], received_at: int) -> None:
    from bson.datetime_ms import DatetimeMS
    from pymongo.write_concern import WriteConcern

    from provd.store.mongo_encode import Encoded, encode

    date = DatetimeMS(received_at)
    fast = WriteConcern(w=1, j=False)
    while batch := list(islice(messages, _AT_ONCE)):
        raws: dict[str, list[Any]] = {}
        for message in batch:
            encoded = encode(message, date)
            assert isinstance(encoded, Encoded)
            raws.setdefault(message.kind.collection, []).append(encoded.raw)
        for collection, documents in raws.items():
            store._database[collection].with_options(write_concern=fast).insert_many(documents, ordered=False)


def _load_embedded(store: Any, messages: Iterator[Message], received_at: int) -> None:
    from provd.common.record import to_document
    from provd.store import documents
    from provd.store.sql_rows import insert, row_of

    while batch := list(islice(messages, 10 * _AT_ONCE)):
        rows: dict[str, list[Any]] = {}
        for message in batch:
            record = {
                **documents.stated(message)[0],
                "_id": documents.record_id(message),
                "received_at": received_at,
            }
            collection = message.kind.collection
            rows.setdefault(collection, []).append(row_of(collection, to_document(record)))
        with store._writing() as connection:
            for collection, some in rows.items():
                connection.executemany(insert(collection, ""), some)


def load(store: Store, runs: list[Run]) -> None:
    """Write the runs, two and two at once, as campaigns overlap, and the mark of the consumer that has seen all."""
    fill = _load_embedded if store.url.startswith("sqlite") else _load_mongo
    for first in range(0, len(runs), 2):
        together = runs[first : first + 2]
        fill(store, _in_turn([run.messages() for run in together]), _RECEIVED_MS)
        for run in together:
            store.write(list(run.goodbyes()), received_at=_RECEIVED_MS)
            store.add_stored(run.books())
            store.put_beats(run.beats())
    store.put_consumer(
        ConsumerMark("head-1", "head", 1, "1", "idle", since=_START_MS, broker_at=clock.now_ms())
    )


def _in_turn(streams: list[Iterator[Message]]) -> Iterator[Message]:
    """A few hundred of each in turn, until all have ended."""
    while streams:
        for stream in tuple(streams):
            some = list(islice(stream, 500))
            if not some:
                streams.remove(stream)
            yield from some


def main() -> None:
    """Load, and say how long it took."""
    given = json.loads(sys.argv[1])
    store = open_store(given["url"])
    began = time.monotonic()
    first, last = given["runs"]
    load(store, [Run(number, given["tasks"]) for number in range(first, last)])
    store.close()
    print(json.dumps({"runs": last - first, "seconds": time.monotonic() - began}))


if __name__ == "__main__":
    main()
