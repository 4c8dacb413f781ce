"""The consumer's connection to Redis.

- Every error of the client leaves here as `BrokerUnavailable` with the URL masked; none is retried here, because
  only the worker knows what is in hand.
- Replies of stream commands stay as the server sent them (RESP2): the parsed shapes differ between client versions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from provd.common.errors import BrokerUnavailable, SettingsError
from provd.common.settings import mask_url

SCHEMES = ("redis", "rediss", "unix")

#: Seconds that Redis has to answer a command. Longer than the connect timeout: an answer may be megabytes.
ANSWER_S = 10.0

#: What every frame's loss would depend on; anything else evicts streams when memory is short.
SAFE_POLICY = "noeviction"

_RAW_REPLIES = ("XREADGROUP", "XAUTOCLAIM", "XCLAIM")


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
    """A connection pool to one Redis. Safe for use by several threads."""

    def __init__(self, url: str, *, connect_timeout_s: float) -> None:
        """Nothing is connected before the first command. Raises `SettingsError` for a URL of another kind."""
        check_url(url)
        self.url = mask_url(url)
        try:
            # Any: the client's own types are unions with its asynchronous half.
            self._client: Any = redis.Redis.from_url(
                url,
                protocol=2,
                socket_connect_timeout=connect_timeout_s,
                socket_timeout=ANSWER_S,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError as error:
            raise SettingsError(f"broker {self.url}: {error}; write redis://HOST:PORT/0") from error
        for command in _RAW_REPLIES:
            self._client.set_response_callback(command, lambda reply, **_: reply)

    def run(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send commands in one go and return their replies; an error reply is returned in its place."""
        if not commands:
            return []
        with self._guard(), self._client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            return list(pipeline.execute(raise_on_error=False))

    def ask(self, *command: Any) -> Any:
        """Send one command; an error reply is raised as `BrokerUnavailable`."""
        with self._guard():
            return self._client.execute_command(*command)

    def sound(self, reply: Any) -> Any:
        """The reply, unless it is an error: that is raised as `BrokerUnavailable`."""
        if isinstance(reply, redis.RedisError):
            raise BrokerUnavailable(self.url, _one_line(reply)) from reply
        return reply

    def ping(self) -> None:
        """Raise `BrokerUnavailable` unless Redis answers now."""
        self.ask("PING")

    def memory(self) -> Memory:
        """Memory in use and allowed."""
        with self._guard():
            facts = self._client.info("memory")
        return Memory(
            int(facts.get("used_memory", 0)),
            int(facts.get("maxmemory", 0)),
            str(facts.get("maxmemory_policy", "")),
        )

    def now_ms(self) -> int:
        """The server's clock, in UTC milliseconds."""
        with self._guard():
            seconds, microseconds = self._client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    def close(self) -> None:
        """Release the connections."""
        self._client.close()

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except (redis.RedisError, OSError) as error:
            raise BrokerUnavailable(self.url, _one_line(error)) from error


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


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
