"""The producer's side of Redis: send a frame, make a stream, beat.

Only the sender's thread and `provd replay` use this module, and only here does the producer import `redis`, for what is
not a plain Redis (see `resp`).
The client never retries by itself and never waits longer than the connect timeout, neither does the search for the
master: what to do instead is the sender's decision.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from provd.common import clock, names
from provd.common.advice import advised
from provd.common.broker_nodes import Connect, Nodes
from provd.common.broker_url import BrokerKind, parse_broker_url
from provd.common.errors import BrokerFull, BrokerUnavailable
from provd.common.names import WorkflowKeys
from provd.common.passwords import hide, mask_url
from provd.common.ranges import Ranges
from provd.common.wire import pack
from provd.producer import forks
from provd.producer.resp import Address, PlainRedis, RedisRefused, plain_address

if TYPE_CHECKING:
    from provd.producer.channel import Channel
    from provd.producer.framing import CutFrame

#: KEYS registry, stream; ARGV group. Stream, group and registry entry are made together, so that no stream exists
#: that no consumer reads.
_CREATE = """
local made = redis.pcall('XGROUP', 'CREATE', KEYS[2], ARGV[1], '0', 'MKSTREAM')
if type(made) == 'table' and made.err and not string.find(made.err, 'BUSYGROUP') then
  return redis.error_reply(made.err)
end
redis.call('SADD', KEYS[1], KEYS[2])
return 1
"""

#: KEYS stream, beats; ARGV producer, beat. A retired workflow gets no beats, or its key would stay for ever.
_BEAT = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return 1
"""


#: What a server at its `maxmemory` says; within a script, the client leaves the first word where it is.
_NO_MEMORY = re.compile(r"\bOOM\b|used memory > 'maxmemory'")

#: What the first look-up of a host, and the first connection, would import.
_FIRST_USE = ("encodings.idna", "secrets", "email.parser")


def import_redis() -> Any:
    """Import `redis`, also in a program that is already ending: short scripts end before the sender's first round.

    `redis` imports `concurrent.futures`, which refuses to be imported once the main thread has ended, because it
    could no longer join the threads of an executor. Nobody starts an executor here.
    """
    with forks.loading_client:
        for name in _FIRST_USE:
            import_module(name)
        return _import_redis()


def _import_redis() -> Any:
    try:
        return import_module("redis")
    except RuntimeError:
        refusing = "_register_atexit"
        register = getattr(threading, refusing)
        setattr(threading, refusing, lambda *_args, **_kwargs: None)
        try:
            return import_module("redis")
        finally:
            setattr(threading, refusing, register)


class Broker:
    """A connection to Redis: one server, the master that Sentinels name, or the masters of a Cluster.

    Every method raises `BrokerUnavailable`; what was asked may then have happened. After that, a fresh `Broker` finds
    out anew who is master.
    """

    def __init__(self, url: str, *, namespace: str, buckets: int, timeout_s: float) -> None:
        """Connects on first use. `buckets` is used only if this Redis has no count yet."""
        self.url = mask_url(url)
        self._raw_url = url
        self._namespace = namespace
        self._wanted_buckets = buckets
        self._buckets = 0
        self._clock_offset = 0
        self._generation = ""
        self._reconnected = False
        plain = plain_address(url)
        refused, connect = self._library(timeout_s) if plain is None else self._own(plain, timeout_s)
        # The builtin ones: an option in the URL that the client does not take, an answer of a type it did not expect.
        self._errors = (refused, OSError, ValueError, TypeError, AttributeError, LookupError)
        with self._translated():
            self._nodes = Nodes(
                parse_broker_url(url), connect, shown=self.url, patience_s=timeout_s, errors=self._errors
            )

    def _own(self, address: Address, timeout_s: float) -> tuple[type[Exception], Connect]:
        return RedisRefused, lambda _url, _patience_s: PlainRedis(address, timeout_s, self._on_connect)

    def _library(self, timeout_s: float) -> tuple[type[Exception], Connect]:
        redis = import_redis()
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        def connect(url: str, patience_s: float | None) -> Any:
            return redis.Redis.from_url(
                url,
                protocol=2,
                socket_connect_timeout=patience_s or timeout_s,
                socket_timeout=patience_s or timeout_s,
                retry=Retry(NoBackoff(), 0),
                health_check_interval=0,
                single_connection_client=False,
                redis_connect_func=self._on_connect,
            )

        return redis.RedisError, connect

    def _on_connect(self, connection: Any) -> None:
        self._reconnected = self._nodes.on_connect(connection) or self._reconnected

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except BrokerUnavailable:
            raise
        except self._errors as error:
            reason = advised(hide(" ".join(str(error).split()).rstrip("."), self._raw_url), self.url)
            kind = BrokerFull if _NO_MEMORY.search(reason) else BrokerUnavailable
            raise kind(self.url, reason or type(error).__name__) from error

    def open(self) -> None:
        """Connect, learn the bucket count, the generation, and how far the two clocks are apart.

        Called before each use: when the client has connected again by itself, all is learned anew.
        """
        if self._buckets and not self._reconnected:
            return
        self._reconnected = False
        key = names.buckets_key(self._namespace)
        with self._translated():
            client = self._client_of(key)
            found = client.get(key)
            if found is None:
                client.set(key, self._wanted_buckets, nx=True)
                found = client.get(key)
            seconds, microseconds = client.time()
            self._clock_offset = seconds * 1000 + microseconds // 1000 - clock.now_ms()
            self._generation = self._ask_generation(client)
            buckets = int(found)
            if buckets < 1:
                raise ValueError(f"{key} is {buckets}: it holds the bucket count")
            self._buckets = buckets

    def _client_of(self, key: str) -> Any:
        return self._nodes.masters().of(key).client

    def _ask_generation(self, client: Any) -> str:
        if self._nodes.address.kind is BrokerKind.CLUSTER:
            return f"cluster-{os.urandom(8).hex()}"  # any of its servers may have been another before
        facts = {**client.info("server"), **client.info("replication")}
        return f"{facts['run_id']}-{facts['master_replid']}"

    @property
    def clock_offset(self) -> int:
        """Milliseconds that Redis' clock is ahead of ours."""
        return self._clock_offset

    @property
    def generation(self) -> str:
        """Which life of Redis this is, after `open`. While it stays the same, Redis has lost nothing of what it
        acknowledged; when it differs from an earlier one, also of an earlier `Broker`, Redis may have.
        """
        return self._generation

    def stored(self, wanted: Sequence[tuple[WorkflowKeys, str]]) -> list[Ranges]:
        """The receipts of producers, each given with its workflow's keys: the numbers of it that the store holds."""
        commands = [(keys.stored, ("HGET", keys.stored, producer_id)) for keys, producer_id in wanted]
        with self._translated():
            texts = self._pipelined(commands)
        return [Ranges.parse(text.decode("ascii", "replace")) if text else Ranges() for text in texts]

    def has_stream(self, keys: WorkflowKeys) -> bool:
        """Whether a workflow has its stream: it has none before its first frame, and after it was retired."""
        with self._translated():
            return bool(self._client_of(keys.stream).exists(keys.stream))

    def keys_of(self, workflow_id: str, campaign_id: str | None) -> WorkflowKeys:
        """The keys of a workflow, after `open`."""
        return WorkflowKeys.of(self._namespace, self._buckets, workflow_id, campaign_id)

    def send(self, frames: Sequence[CutFrame]) -> None:
        """Add frames to their streams, making those that are not there. On an error some may have been added."""
        keys = [self.keys_of(frame.header.workflow_id, frame.header.campaign_id) for frame in frames]
        with self._translated():
            added = self._add(frames, keys)
            missing = [index for index, entry_id in enumerate(added) if entry_id is None]
            if not missing:
                return
            for one in {keys[index] for index in missing}:
                self._client_of(one.stream).eval(_CREATE, 2, one.registry, one.stream, names.GROUP)
            again = self._add([frames[index] for index in missing], [keys[index] for index in missing])
        if None in again:
            raise BrokerUnavailable(self.url, "a stream vanished while it was written to")

    def _add(self, frames: Sequence[CutFrame], keys: Sequence[WorkflowKeys]) -> list[Any]:
        return self._pipelined(
            [
                (
                    key.stream,
                    (
                        "XADD", key.stream, "NOMKSTREAM", "*",
                        names.HEADER_FIELD, frame.header_field, names.BODY_FIELD, frame.body_field,
                    ),
                )
                for frame, key in zip(frames, keys)
            ]
        )  # fmt: skip

    def _pipelined(self, commands: Sequence[tuple[str, tuple[Any, ...]]]) -> list[Any]:
        """Send commands, given with their keys, in one go to each server; the first error reply is raised."""
        masters = self._nodes.masters()
        by_server: dict[str, list[int]] = {}
        for index, (key, _) in enumerate(commands):
            by_server.setdefault(masters.of(key).name, []).append(index)
        replies: list[Any] = [None] * len(commands)
        for indexes in by_server.values():
            client = masters.of(commands[indexes[0]][0]).client
            for index, reply in zip(indexes, _together(client, [commands[index][1] for index in indexes])):
                replies[index] = reply
        return replies

    def beat(self, channels: Sequence[Channel]) -> None:
        """Leave a sign of life for each channel."""
        commands = []
        for channel in channels:
            keys = self.keys_of(channel.workflow_id, channel.campaign_id)
            beat = self._beat_of(channel)
            commands.append(
                (keys.stream, ("EVAL", _BEAT, 2, keys.stream, keys.beats, channel.producer_id, beat))
            )
        with self._translated():
            self._pipelined(commands)

    def _beat_of(self, channel: Channel) -> bytes:
        return pack(
            {
                "at": clock.now_ms() + self._clock_offset,
                "sent": channel.sent,
                "started": channel.tasks_started,
                "ended": channel.tasks_ended,
                "spooled": [list(span) for span in channel.spooled],
                "dropped": [list(span) for span in channel.dropped],
                "dropped_reasons": dict(channel.dropped_reasons),
            }
        )

    def close(self) -> None:
        """Close the connections."""
        with self._translated():
            self._nodes.close()


def _together(client: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    if isinstance(client, PlainRedis):
        return client.execute_commands(commands)
    with client.pipeline(transaction=False) as pipe:
        for command in commands:
            pipe.execute_command(*command)
        replies: list[Any] = pipe.execute()
        return replies
