"""Whether another Redis would take over, and what would be lost with the one that fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from provd.cli.checks import Check, Level, judge
from provd.common.broker_nodes import SLOTS, Connect, Master, Masters
from provd.common.broker_url import BrokerAddress, BrokerKind


def configured(client: Any, name: str) -> str | None:
    """A value of the configuration; None when this user may not read it, as a careful ACL or a managed Redis has it."""
    import redis

    try:
        value = client.config_get(name).get(name)
    except redis.ResponseError:
        return None
    return None if value is None else str(value)


def check_replicas(name: str, master: Master, *, is_durable: bool) -> Iterator[Check]:
    """Whether a master has a replica that could take over, and acknowledges only what a replica can have."""
    replicas = int(master.client.info("replication").get("connected_slaves", 0))
    yield judge(
        f"broker replicas{name}",
        replicas > 0,
        f"{replicas} connected to {master.name}",
        fix="give this master a replica: nobody can take over from it",
    )
    least = configured(master.client, "min-replicas-to-write")
    if least is not None:
        yield judge(
            f"broker acknowledgement{name}",
            is_durable or int(least) > 0,
            f"min-replicas-to-write is {least}" + (", durability is disk" if is_durable else ""),
            fix="set `min-replicas-to-write 1`, or PROVD_DURABILITY=disk: what only a dead master had is lost",
        )


def check_finders(address: BrokerAddress, connect: Connect, masters: Masters) -> Iterator[Check]:
    """Whether those who have to agree on a new master can: the Sentinels, or the servers of the Cluster."""
    if address.kind is BrokerKind.SENTINEL:
        yield from (_check_sentinel(address, host, port, connect) for host, port in address.hosts)
    elif address.kind is BrokerKind.CLUSTER:
        yield _check_cluster(masters)


def _check_sentinel(address: BrokerAddress, host: str, port: int, connect: Connect) -> Check:
    import redis

    subject = f"sentinel {host}:{port}"
    client = connect(address.sentinel_url(host, port), None)
    try:
        # By hand: the client's own method makes a truth value of the words that say how many agree.
        reply = client.execute_command("SENTINEL", "CKQUORUM", address.service)
    except redis.ResponseError as error:
        return Check(subject, Level.FAILED, _text(error), "start the other Sentinels, or lower the quorum")
    except (redis.RedisError, OSError) as error:
        return Check(
            subject, Level.WARNING, _text(error), "start this Sentinel: a failover needs most of them"
        )
    finally:
        client.close()
    return Check(subject, Level.OK, _text(reply))


def _check_cluster(masters: Masters) -> Check:
    facts = _facts(masters.all[0].client.execute_command("CLUSTER", "INFO"))
    state, slots = facts.get("cluster_state", "unknown"), facts.get("cluster_slots_ok", "0")
    return judge(
        "broker cluster",
        state == "ok" and slots == str(SLOTS),
        f"state {state}, {slots} of {SLOTS} slots served by {len(masters.all)} masters",
        fix="look at CLUSTER NODES: a slot without a master takes no messages",
        otherwise=Level.FAILED,
    )


def _facts(reply: Any) -> dict[str, str]:
    lines = _text(reply, keep_lines=True).splitlines()
    return {key: value for key, _, value in (line.partition(":") for line in lines)}


def _text(value: Any, *, keep_lines: bool = False) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text if keep_lines else " ".join(text.split())
