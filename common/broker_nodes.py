"""Which Redis servers are behind a broker's address, and which of them has a key.

Both ends use it: a producer that wrote to another server than the consumer reads from would lose what it writes.

- Who is master is asked at the first use and after every `forget`, never in the middle of one. Behind Sentinels, and in
  a Cluster, a connection that was lost is not made again by the client: a master that comes back after its failover
  calls itself master for a moment, and what is written to it then is lost. The question is asked anew instead.
- Sentinels, or servers of a Cluster, are asked one after the other, each for its share of the patience: all together
  wait no longer than one connection may.
- Nothing here imports the client: `connect` makes one from a URL.
"""

from __future__ import annotations

import binascii
import threading
import weakref
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from provd.common.broker_url import BrokerAddress, BrokerKind
from provd.common.errors import BrokerUnavailable

SLOTS = 16_384

#: Least seconds for one of several that are asked.
_LEAST_PATIENCE_S = 0.05

#: From a URL, and the seconds it may take to connect and to answer; None is what is usual.
Connect = Callable[[str, "float | None"], Any]


def slot_of(key: str | bytes) -> int:
    """The Cluster slot of a key: of what stands between its first braces, if there is any."""
    raw = key.encode() if isinstance(key, str) else key
    start = raw.find(b"{") + 1
    end = raw.find(b"}", start)
    return binascii.crc_hqx(raw[start:end] if 0 < start < end else raw, 0) % SLOTS


@dataclass(frozen=True, slots=True)
class Master:
    """One server that takes writes; `name` is its address as people read it, `client` the connection to it."""

    name: str
    client: Any


@dataclass(frozen=True, slots=True)
class Masters:
    """The servers as they were found: one, or those of a Cluster, of which each has some slots."""

    all: tuple[Master, ...]
    #: First slots, ascending, and (last slot, index into `all`) of each range; empty when one server has all.
    _starts: tuple[int, ...] = ()
    _ends: tuple[tuple[int, int], ...] = ()

    def of(self, key: str | bytes) -> Master:
        """The server that has this key. Raises `LookupError` when none has its slot."""
        if not self._starts:
            return self.all[0]
        slot = slot_of(key)
        index = bisect_right(self._starts, slot) - 1
        if index < 0 or slot > self._ends[index][0]:
            raise LookupError(f"no server of the Cluster has slot {slot}")
        return self.all[self._ends[index][1]]

    def close(self) -> None:
        """Close the connections."""
        for master in self.all:
            master.client.close()


class Nodes:
    """Finds the masters behind an address. Safe for use by several threads."""

    def __init__(
        self,
        address: BrokerAddress,
        connect: Connect,
        *,
        shown: str,
        patience_s: float,
        errors: tuple[type[Exception], ...],
    ) -> None:
        """`shown` is the address as errors have it, `errors` are those of the client; `patience_s` bounds the search."""
        self.address = address
        self._shown = shown
        self._connect = connect
        self._patience_s = patience_s
        self._errors = errors
        self._found: Masters | None = None
        self._lock = threading.Lock()
        self._not_master: set[str] = set()
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    @property
    def is_single(self) -> bool:
        """Whether the address itself names the one server."""
        return self.address.kind is BrokerKind.SINGLE

    def masters(self) -> Masters:
        """The masters, searched for if they are not known. Raises `BrokerUnavailable` and errors of the client."""
        found = self._found
        if found is not None:
            return found
        with self._lock:
            if self._found is None:
                self._found = self._find()
            return self._found

    def forget(self, masters: Masters | None) -> None:
        """These failed: search again at the next use. The one server of a plain URL stays what it is."""
        with self._lock:
            if masters is None or masters is not self._found or self.is_single:
                return
            self._found = None
        masters.close()

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            found, self._found = self._found, None
        if found is not None:
            found.close()

    def on_connect(self, connection: Any) -> bool:
        """What the client does on each new connection (`redis_connect_func`); says whether it was one before."""
        again = connection in self._seen
        if again and not self.is_single:
            connection.disconnect()
            raise ConnectionResetError("the connection was lost")
        self._seen.add(connection)
        connection.on_connect()
        return again

    # --- the search -------------------------------------------------------------------------------------------

    def _find(self) -> Masters:
        if self.address.kind is BrokerKind.SENTINEL:
            return self._ask_each(self._ask_sentinel)
        if self.address.kind is BrokerKind.CLUSTER:
            return self._ask_each(self._ask_cluster)
        return Masters((Master("", self._connect(self.address.server_url(), None)),))

    def _ask_each(self, ask: Callable[[str, int, float], Masters]) -> Masters:
        hosts = self.address.hosts
        share = max(self._patience_s / len(hosts), _LEAST_PATIENCE_S)
        reasons: list[str] = []
        self._not_master.clear()
        catch: tuple[type[Exception], ...] = (*self._errors, LookupError, ValueError, TypeError)
        for host, port in hosts:
            try:
                return ask(host, port, share)
            except catch as error:
                reasons.append(f"{host}:{port}: {' '.join(str(error).split()) or type(error).__name__}")
        raise BrokerUnavailable(self._shown, f"{self._failure()}: {'; '.join(reasons)}")

    def _failure(self) -> str:
        if self.address.kind is BrokerKind.SENTINEL:
            return f"no Sentinel leads to a master of {self.address.service!r}"
        return "no server of the Cluster says who has which slots"

    def _ask_sentinel(self, host: str, port: int, patience_s: float) -> Masters:
        found = self._question(
            self.address.sentinel_url(host, port),
            patience_s,
            ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.address.service),
        )
        if not found:
            raise LookupError(f"knows no service {self.address.service!r}")
        name, number = _text(found[0]), int(found[1])
        master = Master(f"{name}:{number}", self._connect(self.address.server_url(name, number), None))
        with ExitStack() as opened:
            opened.callback(master.client.close)
            self._check_role(master)
            opened.pop_all()
        return Masters((master,))

    def _check_role(self, master: Master) -> None:
        """Sentinels name a replica a moment before it is promoted, and the dead until they have agreed on that."""
        if master.name in self._not_master:  # another Sentinel named it: one that hangs is waited for once
            raise LookupError(f"names {master.name}, too")
        self._not_master.add(master.name)
        if master.client.info("replication").get("role") != "master":
            raise LookupError(f"names {master.name}, which is not master yet, or no longer")

    def _ask_cluster(self, host: str, port: int, patience_s: float) -> Masters:
        ranges = self._question(self.address.server_url(host, port), patience_s, ("CLUSTER", "SLOTS"))
        if not ranges:
            raise LookupError("its Cluster has no slots yet")
        return self._masters_of(sorted(_slot_range(item, host) for item in ranges))

    def _masters_of(self, ranges: Sequence[tuple[int, int, str, int]]) -> Masters:
        # By first slot, so that the first master is the same for everybody while nobody fails over.
        addresses = list(dict.fromkeys((host, port) for _, _, host, port in ranges))
        masters = tuple(
            Master(f"{host}:{port}", self._connect(self.address.server_url(host, port), None))
            for host, port in addresses
        )
        return Masters(
            masters,
            tuple(first for first, _, _, _ in ranges),
            tuple((last, addresses.index((host, port))) for _, last, host, port in ranges),
        )

    def _question(self, url: str, patience_s: float, command: Iterable[str]) -> Any:
        client = self._connect(url, patience_s)
        try:
            return client.execute_command(*command)
        finally:
            client.close()


def _slot_range(item: Sequence[Any], asked: str) -> tuple[int, int, str, int]:
    """First and last slot, host and port of one line of CLUSTER SLOTS; no host means the one that was asked."""
    first, last, master = item[0], item[1], item[2]
    host = _text(master[0]) if master[0] else ""
    return int(first), int(last), asked if host in ("", "?") else host, int(master[1])


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
