"""Whether Redis answers, and is set up so that it loses nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from provd.cli import human
from provd.cli.checks import Check, Level, judge
from provd.common.settings import Settings, mask_url

#: The oldest Redis that has every command provd uses.
_OLDEST = (6, 2)

#: Share of `maxmemory` above which there is little room left for an outage of the store.
_FULL = 0.5

#: Connections below which a larger job is refused.
_FEW_CLIENTS = 1000

_NEEDED_POLICY = "noeviction"


def check_broker(settings: Settings) -> Iterator[Check]:
    """Ask the broker about itself; one `unreachable` result when it does not answer."""
    url = settings.resolved_broker_url()
    if not url:
        yield Check("broker", Level.OK, f"none: messages go to the spool in {settings.spool_path}")
        return
    import redis

    client: Any = redis.Redis.from_url(
        url, socket_connect_timeout=settings.connect_timeout_s, socket_timeout=settings.connect_timeout_s
    )
    try:
        info = client.info()
        policy_of_log = (
            client.config_get("appendfsync").get("appendfsync") if _may_configure(client) else None
        )
    except redis.RedisError as error:
        yield Check("broker", Level.UNREACHABLE, f"{mask_url(url)}: {_one_line(error)}", _fix_for(url))
        return
    finally:
        client.close()
    yield _version(url, info)
    yield from _memory(info)
    yield _persistence(info, policy_of_log)
    yield from _clients(info)


def _may_configure(client: Any) -> bool:
    """Whether this user may read the configuration; a careful ACL, or a managed Redis, forbids it."""
    import redis

    try:
        client.config_get("appendfsync")
    except redis.ResponseError:
        return False
    return True


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _fix_for(url: str) -> str:
    if url.startswith("unix://"):
        return "start it: provd consume --embedded"
    return "start Redis there, or name another one: PROVD_BROKER_URL=redis://HOST:PORT/0"


def _version(url: str, info: dict[str, Any]) -> Check:
    version = str(info.get("redis_version", "0"))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    return judge(
        "broker",
        numbers >= _OLDEST,
        f"{mask_url(url)} answers, version {version}",
        fix="use Redis 6.2 or later",
        otherwise=Level.FAILED,
    )


def _memory(info: dict[str, Any]) -> Iterator[Check]:
    policy = str(info.get("maxmemory_policy", "unknown"))
    yield judge(
        "broker eviction",
        policy == _NEEDED_POLICY,
        f"maxmemory-policy is {policy}",
        fix="set `maxmemory-policy noeviction`: any other lets Redis throw accepted messages away",
        otherwise=Level.FAILED,
    )
    limit, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    yield judge(
        "broker memory",
        bool(limit) and used < limit * _FULL,
        f"{human.size(used)} used of {human.size(limit)}"
        if limit
        else f"{human.size(used)} used, no maxmemory",
        fix="give it more memory, or start more consumers"
        if limit
        else "set `maxmemory`, or Redis may fill the host",
    )


def _persistence(info: dict[str, Any], fsync: str | None) -> Check:
    if not int(info.get("aof_enabled", 0)):
        return Check(
            "broker persistence",
            Level.WARNING,
            "the append-only file is off",
            "set `appendonly yes`, or what Redis holds is lost when it restarts",
        )
    written = str(info.get("aof_last_write_status", "ok"))
    return judge(
        "broker persistence",
        written == "ok",
        f"append-only file on{f', appendfsync {fsync}' if fsync else ''}, last write {written}",
        fix="look at the disk of Redis: its append-only file cannot be written",
        otherwise=Level.FAILED,
    )


def _clients(info: dict[str, Any]) -> Iterator[Check]:
    limit = int(info.get("maxclients", 0))
    if limit:
        yield judge(
            "broker clients",
            limit >= _FEW_CLIENTS,
            f"{int(info.get('connected_clients', 0)):,} of {limit:,} connections in use",
            fix="raise `maxclients` and the open-file limit of Redis: every producer process is one connection",
        )
