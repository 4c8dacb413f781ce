"""Whether Redis answers, and is set up so that it loses nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from provd.cli import human
from provd.cli.check_failover import check_finders, check_replicas, configured
from provd.cli.checks import Check, Level, judge
from provd.common.advice import advice_for
from provd.common.broker_nodes import Master, Nodes
from provd.common.broker_url import CLUSTER_SCHEME, SENTINEL_SCHEME, BrokerKind, parse_broker_url
from provd.common.errors import BrokerUnavailable
from provd.common.passwords import hide, mask_url
from provd.common.settings import Settings

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
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    def connect(url: str, patience_s: float | None) -> Any:
        seconds = patience_s or settings.connect_timeout_s
        return redis.Redis.from_url(
            url,
            protocol=2,
            socket_connect_timeout=seconds,
            socket_timeout=seconds,
            retry=Retry(NoBackoff(), 0),
        )

    # OSError: a certificate's file that cannot be read. ValueError, TypeError: an option that the client does not take.
    errors = (redis.RedisError, OSError, ValueError, TypeError)
    patience_s = settings.connect_timeout_s
    address = parse_broker_url(url)
    nodes = Nodes(address, connect, shown=mask_url(url), patience_s=patience_s, errors=errors)
    try:
        for master in nodes.masters().all:
            name = "" if nodes.is_single or address.kind is BrokerKind.SENTINEL else f" {master.name}"
            yield from _check_server(name, master, url)
            if not nodes.is_single:
                yield from check_replicas(name, master, is_durable=settings.durability == "disk")
        yield from check_finders(address, connect, nodes.masters())
    except BrokerUnavailable as error:
        yield Check(
            "broker", Level.UNREACHABLE, f"{error.url}: {hide(error.reason, url)}", _fix_for(url, error)
        )
    except errors as error:
        yield Check(
            "broker",
            Level.UNREACHABLE,
            f"{mask_url(url)}: {hide(_one_line(error), url)}",
            _fix_for(url, error),
        )
    finally:
        nodes.close()


def _check_server(name: str, master: Master, url: str) -> Iterator[Check]:
    """`name` stands behind the subject of each check where there are several servers."""
    info = master.client.info()
    policy_of_log = configured(master.client, "appendfsync")
    checks = [
        _version(url if not master.name else master.name, info),
        *_memory(info),
        _persistence(info, policy_of_log),
        *_clients(info),
    ]
    for check in checks:
        yield replace(check, subject=check.subject + name)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _fix_for(url: str, error: Exception) -> str:
    known = advice_for(str(error), url)
    if known:
        return known
    if url.startswith("unix://"):
        return "start it: provd consume --embedded"
    if url.startswith(f"{SENTINEL_SCHEME}:"):
        return "start the Sentinels and the servers there, and look at what SENTINEL CKQUORUM says"
    if url.startswith(f"{CLUSTER_SCHEME}:"):
        return "start the servers of the Cluster, and look at what CLUSTER INFO says"
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
