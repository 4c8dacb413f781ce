"""The consumer's connection to Redis: one server, the master that Sentinels name, or the masters of a Cluster.

- Every error of the client leaves here as `BrokerUnavailable` with the URL masked; none is retried here, because
  only the worker knows what is in hand. After one, the masters are searched for anew at the next command.
- A server that says it is not the one to ask (moved, read-only, loading, its master or its Cluster down) is as good as
  away, also where it says so in the place of one reply.
- Replies of stream commands stay as the server sent them (RESP2): the parsed shapes differ between client versions.
- Which server has a command's key is computed here: asking Redis would cost a round trip each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from provd.common.advice import advised
from provd.common.broker_nodes import Master, Masters, Nodes
from provd.common.broker_url import REDIS_SCHEMES, parse_broker_url
from provd.common.errors import BrokerUnavailable, SettingsError
from provd.common.passwords import hide, mask_url

SCHEMES = REDIS_SCHEMES

#: Seconds that Redis has to answer a command. Longer than the connect timeout: an answer may be megabytes.
ANSWER_S = 10.0

#: What every frame's loss would depend on; anything else evicts streams when memory is short.
SAFE_POLICY = "noeviction"

_RAW_REPLIES = ("XREADGROUP", "XAUTOCLAIM", "XCLAIM")

#: What a server says that is not, or not now, the one to ask. `redis` takes the first word off some of them.
_NOT_NOW = re.compile(r"\b(MOVED|ASK|TRYAGAIN|CLUSTERDOWN|READONLY|MASTERDOWN|LOADING|NOREPLICAS)\b")
_NOT_NOW_ERRORS = (
    exceptions.AskError,  # and MovedError
    exceptions.TryAgainError,
    exceptions.ClusterDownError,
    exceptions.MasterDownError,
    exceptions.ReadOnlyError,
    exceptions.BusyLoadingError,
)

#: Commands whose first key is not their first argument: where it is, or the word before it.
_KEY_AT = {"EVAL": 3, "EVALSHA": 3, "XINFO": 2, "XGROUP": 2, "OBJECT": 2, "MEMORY": 2}
_KEY_AFTER = {"XREADGROUP": "STREAMS", "XREAD": "STREAMS"}

#: Commands that a server answers about itself.
_KEYLESS = frozenset({"PING", "INFO", "TIME", "ROLE", "CONFIG", "CLIENT", "DBSIZE", "SCAN"})


@dataclass(frozen=True, slots=True)
class Memory:
    """Redis' memory in bytes; `limit` 0 means none is set."""

    used: int
    limit: int
    policy: str

    @property
    def share(self) -> float:
        """How much of the limit is used; 0 when there is none."""
        return self.used / self.limit if self.limit > 0 else 0.0


class Broker:
    """Connection pools to all masters. Safe for use by several threads."""

    def __init__(self, url: str, *, connect_timeout_s: float) -> None:
        """Nothing is connected before the first command. Raises `SettingsError` for a URL of another kind."""
        check_url(url)
        self.url = mask_url(url)
        self._raw_url = url
        self._connect_timeout_s = connect_timeout_s
        #: How often a connection was lost so far, also where the client made it anew and nobody else noticed. After
        #: that, Redis may have been restarted, and have forgotten some of what it had been told.
        self.breaks = 0
        try:
            self._nodes = Nodes(
                parse_broker_url(url),
                self._connect,
                shown=self.url,
                patience_s=connect_timeout_s,
                errors=(redis.RedisError, OSError),
            )
        except SettingsError as error:
            raise SettingsError(f"broker {self.url}: {error}") from error

    # Any: the client's own types are unions with its asynchronous half.
    def _connect(self, url: str, patience_s: float | None) -> Any:
        client: Any = redis.Redis.from_url(
            url,
            protocol=2,
            socket_connect_timeout=patience_s or self._connect_timeout_s,
            socket_timeout=patience_s or ANSWER_S,
            retry=Retry(NoBackoff(), 0),
            redis_connect_func=self._on_connect,
        )
        for command in _RAW_REPLIES:
            client.set_response_callback(command, lambda reply, **_: reply)
        return client

    def _on_connect(self, connection: Any) -> None:
        if self._nodes.on_connect(connection):
            self.breaks += 1

    def run(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send commands, in one go to each server, and return their replies; an error reply is returned in its place.

        Commands of one key are carried out in their order. Raises `BrokerUnavailable`; some may then have been done.
        """
        if not commands:
            return []
        replies: list[Any] = [None] * len(commands)
        with self._guard() as masters:
            for master, indexes in _by_master(masters, commands).items():
                with master.client.pipeline(transaction=False) as pipeline:
                    for index in indexes:
                        pipeline.execute_command(*commands[index])
                    answers = pipeline.execute(raise_on_error=False)
                for index, reply in zip(indexes, answers, strict=True):
                    if _is_not_now(reply):
                        raise reply
                    replies[index] = reply
        return replies

    def ask(self, *command: Any) -> Any:
        """Send one command; an error reply is raised as `BrokerUnavailable`."""
        with self._guard() as masters:
            return _master_of(masters, command).client.execute_command(*command)

    def sound(self, reply: Any) -> Any:
        """The reply, unless it is an error: that is raised as `BrokerUnavailable`."""
        if isinstance(reply, redis.RedisError):
            raise self._unavailable(reply) from reply
        return reply

    def ping(self) -> None:
        """Raise `BrokerUnavailable` unless every master answers now."""
        with self._guard() as masters:
            for master in masters.all:
                master.client.execute_command("PING")

    def memory(self) -> Memory:
        """Memory in use and allowed, of the server that is the fullest; the policy is that of an unsafe one."""
        with self._guard() as masters:
            each = [_memory_of(master) for master in masters.all]
        fullest = max(each, key=lambda memory: (memory.share, memory.used))
        unsafe = [memory.policy for memory in each if memory.policy not in ("", SAFE_POLICY)]
        return Memory(fullest.used, fullest.limit, unsafe[0] if unsafe else fullest.policy)

    def now_ms(self) -> int:
        """The server's clock, in UTC milliseconds; of a Cluster, always the same server's while it is there."""
        with self._guard() as masters:
            seconds, microseconds = masters.all[0].client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    def close(self) -> None:
        """Release the connections."""
        self._nodes.close()

    @contextmanager
    def _guard(self) -> Iterator[Masters]:
        masters = None
        try:
            masters = self._nodes.masters()
            yield masters
        except BrokerUnavailable:
            raise
        except (redis.RedisError, OSError, LookupError) as error:
            if not isinstance(error, redis.ResponseError) or _is_not_now(error):
                self.breaks += 1
                self._nodes.forget(masters)
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> BrokerUnavailable:
        reason = advised(hide(" ".join(str(error).split()), self._raw_url), self.url)
        return BrokerUnavailable(self.url, reason or type(error).__name__)


def check_url(url: str) -> None:
    """Raise `SettingsError` unless this version can consume from `url`."""
    scheme = url.partition("://")[0]
    if scheme in SCHEMES:
        return
    allowed = ", ".join(f"{name}://" for name in SCHEMES)
    if not url or scheme == "file":
        raise SettingsError(f"broker_url names no Redis to consume from: give --broker with {allowed}")
    raise SettingsError(f"broker_url is {mask_url(url)!r}: this version takes {allowed}")


def is_no_group(reply: object) -> bool:
    """Whether a reply says that a stream, or our group on it, does not exist (any more)."""
    return isinstance(reply, redis.ResponseError) and str(reply).startswith(("NOGROUP", "UNBLOCKED"))


def is_wrong_type(reply: object) -> bool:
    """Whether a reply says that a key is not a stream."""
    return isinstance(reply, redis.ResponseError) and "WRONGTYPE" in str(reply)


def _is_not_now(reply: object) -> bool:
    """Whether a reply says that this server is not, or not now, the one to ask."""
    if isinstance(reply, _NOT_NOW_ERRORS):
        return True
    return isinstance(reply, redis.RedisError) and _NOT_NOW.search(str(reply)) is not None


def _memory_of(master: Master) -> Memory:
    facts = master.client.info("memory")
    return Memory(
        int(facts.get("used_memory", 0)),
        int(facts.get("maxmemory", 0)),
        str(facts.get("maxmemory_policy", "")),
    )


def _by_master(masters: Masters, commands: Sequence[Sequence[Any]]) -> dict[Master, list[int]]:
    """The indexes of the commands that each server is asked."""
    if len(masters.all) == 1:
        return {masters.all[0]: list(range(len(commands)))}
    found: dict[Master, list[int]] = {}
    for index, command in enumerate(commands):
        found.setdefault(_master_of(masters, command), []).append(index)
    return found


def _master_of(masters: Masters, command: Sequence[Any]) -> Master:
    key = None if len(masters.all) == 1 else key_of(command)
    return masters.all[0] if key is None else masters.of(key)


def key_of(command: Sequence[Any]) -> str | bytes | None:
    """The first key that a command names, None when it names none."""
    name = str(command[0]).upper()
    if name in _KEYLESS:
        return None
    index = command.index(_KEY_AFTER[name]) + 1 if name in _KEY_AFTER else _KEY_AT.get(name, 1)
    key = command[index] if index < len(command) else None
    return key if isinstance(key, (str, bytes)) else None
