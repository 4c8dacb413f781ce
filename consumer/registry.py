"""Which streams there are.

Producers enter each stream into its bucket's set when they create it; retirement takes it out. The consumer looks
twice a second, so a new workflow is read from within that time; with tens of thousands of streams, every two seconds.
"""

from __future__ import annotations

from collections.abc import Collection

from provd.common import names
from provd.consumer.broker import Broker
from provd.consumer.pace import Pace

#: Seconds between two looks at the registry, and the most that they may become.
REFRESH_S = 0.5
_LONGEST_S = 2.0


class Registry:
    """The streams of one namespace that this consumer serves."""

    def __init__(
        self, broker: Broker, *, namespace: str, buckets: int, workflow_ids: Collection[str] = ()
    ) -> None:
        """`buckets` counts only where Redis has none set yet. `workflow_ids` empty means all."""
        self._broker = broker
        self._namespace = namespace
        self._default_buckets = buckets
        self._workflow_ids = frozenset(workflow_ids)
        self._buckets = 0
        self._pace = Pace(REFRESH_S, longest_s=_LONGEST_S)
        self._is_expired = False
        self._by_bucket: list[list[str]] = []

    @property
    def by_bucket(self) -> list[list[str]]:
        """Stream keys, one list per bucket that has any."""
        return self._by_bucket

    @property
    def streams(self) -> list[str]:
        """All stream keys."""
        return [stream for bucket in self._by_bucket for stream in bucket]

    def pieces(self, most: int) -> list[list[str]]:
        """All stream keys in lists for one script each: of one bucket, and of at most so many."""
        return [
            bucket[start : start + most]
            for bucket in self._by_bucket
            for start in range(0, len(bucket), most)
        ]

    def __len__(self) -> int:
        return sum(map(len, self._by_bucket))

    def refresh(self, *, now: bool = False) -> bool:
        """Look again if it is time, or `now`; says whether anything changed. Raises `BrokerUnavailable`."""
        if not now and not self._pace.is_due:
            return False
        with self._pace.doing():
            before, self._by_bucket = self._by_bucket, self._read()
        return before != self._by_bucket

    def _read(self) -> list[list[str]]:
        if self._is_expired or not self._buckets:
            self._buckets = self._read_buckets()
            self._is_expired = False
        buckets = self._buckets or self._default_buckets
        keys = [names.registry_key(self._namespace, bucket) for bucket in range(buckets)]
        replies = self._broker.run([("SMEMBERS", key) for key in keys])
        found = [
            sorted(stream for stream in map(_text, self._broker.sound(reply)) if self._is_served(stream, key))
            for key, reply in zip(keys, replies, strict=True)
        ]
        return [bucket for bucket in found if bucket]

    def expire(self) -> None:
        """Look again at the next `refresh`, however young the last look is, and at the bucket count, too."""
        self._pace.expire()
        self._is_expired = True

    def keys_of(self, workflow_id: str) -> names.WorkflowKeys:
        """The keys of a workflow; that of its stream only if it has no campaign."""
        buckets = self._buckets or self._default_buckets
        return names.WorkflowKeys.of(self._namespace, buckets, workflow_id, None)

    def drop(self, *streams: str) -> None:
        """Forget streams until the next look."""
        gone = set(streams)
        kept = ([key for key in bucket if key not in gone] for bucket in self._by_bucket)
        self._by_bucket = [bucket for bucket in kept if bucket]

    def _is_served(self, stream: str, registry: str) -> bool:
        """What is no stream of the bucket is left alone: one call about keys of two buckets would fail for all."""
        if not stream.startswith(f"{registry.removesuffix('streams')}stream:"):
            return False
        return not self._workflow_ids or names.workflow_of_stream(stream) in self._workflow_ids

    def _read_buckets(self) -> int:
        """The count that this Redis has; 0 when it has none and is too full to be given one."""
        key = names.buckets_key(self._namespace)
        found = self._broker.ask("GET", key)
        if found is None:
            self._broker.run([("SET", key, self._default_buckets, "NX")])
            found = self._broker.ask("GET", key)
        return int(found or 0)


def _text(key: bytes) -> str:
    return key.decode("utf-8", "replace")
