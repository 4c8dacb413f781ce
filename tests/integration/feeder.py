"""Fills streams as a producer does, without the producer."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgpack
import redis

from provd.common import clock, ids, names, wire
from provd.common.record import SCHEMA_VERSION, Kind, Message

BUCKETS = 16

_CREATE = """
redis.pcall('XGROUP', 'CREATE', KEYS[2], ARGV[1], '0', 'MKSTREAM')
redis.call('SADD', KEYS[1], KEYS[2])
return 1
"""


class Feeder:
    """One producer in one workflow: makes messages with consecutive numbers and sends them as frames."""

    def __init__(
        self,
        client: redis.Redis,
        namespace: str,
        workflow_id: str = "w1",
        *,
        campaign_id: str | None = None,
        receipt: bool = False,
    ) -> None:
        """`receipt`: its frames say that it waits for the store's receipts, as with `durability: disk`."""
        self.client: Any = client
        self.receipt = receipt
        self.workflow_id = workflow_id
        self.campaign_id = campaign_id
        self.producer_id = ids.new_producer_id()
        self.keys = names.WorkflowKeys.of(namespace, BUCKETS, workflow_id, campaign_id)
        self.seq = 0
        self.tasks_made = 0

    def tasks(self, count: int, **fields: Any) -> list[Message]:
        """Finished tasks that no stream has seen yet."""
        messages = []
        for _ in range(count):
            self.tasks_made += 1
            record = {
                "task_id": ids.task_id(self.producer_id, self.tasks_made),
                "activity_id": "train",
                "status": "FINISHED",
                "started_at": clock.now_ms(),
                "duration": 0.25,
                "used": {"lr": 0.1, "epochs": self.tasks_made},
                "generated": {"loss": 1.5},
            }
            messages.append(self._message(Kind.TASK, record | fields))
        return messages

    def hello(self) -> Message:
        """The producer's first word."""
        return self._message(Kind.PRODUCER, {"status": "RUNNING", "started_at": clock.now_ms()})

    def goodbye(self) -> Message:
        """The producer's last word."""
        return self._message(
            Kind.PRODUCER,
            {
                "status": "FINISHED",
                "closed_at": clock.now_ms(),
                "sent": self.seq + 1,
                "tasks_started": self.tasks_made,
                "tasks_ended": self.tasks_made,
            },
        )

    def send(self, messages: Sequence[Message], *, frame: int = 500) -> list[bytes]:
        """Put messages into the stream; returns the ids of the entries."""
        return [
            self.send_raw(*self.encoded(messages[start : start + frame]))
            for start in range(0, len(messages), frame)
        ]

    def encoded(self, messages: Sequence[Message]) -> tuple[bytes, bytes]:
        """The header and body of one frame."""
        header, body = wire.encode_messages(
            messages, campaign_id=self.campaign_id, hostname="node1", pid=1, rank=None
        )
        if self.receipt:
            header = wire.encode_header(replace(wire.decode_header(header), receipt=True))
        return header, body

    def send_garbled(self, messages: Sequence[Message]) -> bytes:
        """Put one frame into the stream with one bit in its middle flipped; returns its body."""
        header, body = self.encoded(messages)
        middle = len(body) // 2
        garbled = body[:middle] + bytes([body[middle] ^ 0x40]) + body[middle + 1 :]
        self.send_raw(header, garbled)
        return garbled

    def send_raw(self, header: bytes, body: bytes) -> bytes:
        """Put an entry into the stream, whatever it holds."""
        fields = {names.HEADER_FIELD: header, names.BODY_FIELD: body}
        entry: bytes | None = self.client.xadd(self.keys.stream, fields, nomkstream=True)
        if entry is None:
            self.client.eval(_CREATE, 2, self.keys.registry, self.keys.stream, names.GROUP)
            entry = self.client.xadd(self.keys.stream, fields, nomkstream=True)
        assert entry is not None
        return entry

    def whole_run(self, count: int, *, frame: int = 500) -> None:
        """A producer's life: hello, tasks, goodbye."""
        self.send([self.hello(), *self.tasks(count), self.goodbye()], frame=frame)

    def beat(self, at: int, **fields: Any) -> None:
        """A sign of life."""
        self.client.hset(
            self.keys.beats, self.producer_id, msgpack.packb({"at": at, "sent": self.seq} | fields)
        )

    def receipts(self) -> str:
        """What Redis says that the store holds of this producer."""
        return (self.client.hget(self.keys.stored, self.producer_id) or b"").decode()

    def length(self) -> int:
        """Entries in the stream."""
        return int(self.client.xlen(self.keys.stream))

    def pending(self) -> int:
        """Entries delivered and not acknowledged."""
        return int(self.client.xpending(self.keys.stream, names.GROUP)["pending"])

    def _message(self, kind: Kind, record: dict[str, Any]) -> Message:
        self.seq += 1
        common = {
            "workflow_id": self.workflow_id,
            "producer_id": self.producer_id,
            "seq": self.seq,
            "hostname": "node1",
            "pid": 1,
            "schema_version": SCHEMA_VERSION,
        }
        return Message(kind, self.producer_id, self.workflow_id, self.seq, common | record)


def newer_frame(feeder: Feeder) -> tuple[bytes, bytes]:
    """A frame of the next schema, from a feeder's producer."""
    packed = wire.pack([SCHEMA_VERSION + 1, feeder.producer_id, feeder.workflow_id, "of the future"])
    return zlib.crc32(packed).to_bytes(4, "little") + packed, b"body of the future"
