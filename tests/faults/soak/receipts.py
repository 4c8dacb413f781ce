"""The receipts that producers trust when they delete their own copy, held against the store's ledger.

- A receipt is never ahead of the store: what the ledger lacks when it is read after the receipts, nobody may have been
  told is stored.
"""

from __future__ import annotations

from typing import Any

import redis

from provd.common.names import LEDGER
from provd.common.ranges import Ranges
from tests.faults.soak.stage import NAMESPACE


def unfounded(client: redis.Redis, database: Any) -> list[str]:
    """Receipts for what is not in the store. Raises the clients' errors when a service is away."""
    receipts = _receipts(client)
    return [
        f"{producer_id} of {workflow_id}: receipts for {gap}"
        for (producer_id, workflow_id), ranges in receipts.items()
        if (gap := ranges.minus(_ledger(database, producer_id, workflow_id)))
    ]


def _receipts(client: redis.Redis) -> dict[tuple[str, str], Ranges]:
    found = {}
    for key in client.scan_iter(match=f"{NAMESPACE}:*:stored:*", count=1000):
        held: Any = client.hgetall(key)
        for producer_id, text in held.items():
            found[producer_id.decode(), key.decode().rpartition(":")[2]] = Ranges.parse(text.decode())
    return found


def _ledger(database: Any, producer_id: str, workflow_id: str) -> Ranges:
    ranges = database[LEDGER].find({"producer_id": producer_id, "workflow_id": workflow_id})
    return Ranges.of((document["first_seq"], document["last_seq"]) for document in ranges)
