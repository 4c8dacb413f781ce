"""Streams whose workflow has ended are removed, so that Redis holds what is going on and nothing else.

- Retired is only what is empty, has nothing pending, and whose every producer has closed in the store (or has been
  silent for a day). The script checks Redis' part again, in one step.
- A producer that comes late finds no stream and makes a new one: nothing is lost.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from provd.common import clock, names
from provd.consumer import scripts
from provd.consumer.beats import Beats
from provd.consumer.broker import Broker
from provd.consumer.registry import Registry
from provd.store.interface import Store

log = logging.getLogger("provd.consumer")

#: Workflows asked about in one round: each costs the store a query.
_AT_ONCE = 8

#: Seconds before a workflow that was not over is asked about again.
_ASK_AGAIN_S = 10.0

#: Silence after which a producer that never closed holds a stream no longer, in milliseconds.
_SILENT_MS = 24 * 3600 * 1000


class Retirement:
    """Removes the streams of ended workflows, a few at a time."""

    def __init__(self, broker: Broker, registry: Registry, store: Store, beats: Beats) -> None:
        self._broker = broker
        self._registry = registry
        self._store = store
        self._beats = beats
        self._ask_at: dict[str, float] = {}

    def look(self, lengths: dict[str, int]) -> int:
        """Retire what can be, given each stream's length; returns how many. Raises when a service is away."""
        now = clock.monotonic()
        self._ask_at = {stream: at for stream, at in self._ask_at.items() if stream in lengths}
        empty = [
            stream
            for stream, length in lengths.items()
            if length == 0 and self._ask_at.get(stream, 0.0) <= now
        ]
        # Who has waited longest comes first, so none of many is passed over for ever.
        empty.sort(key=lambda stream: self._ask_at.get(stream, 0.0))
        retired = 0
        for stream in empty[:_AT_ONCE]:
            self._ask_at[stream] = now + _ASK_AGAIN_S
            if self._is_over(stream):
                retired += self._retire(stream)
        return retired

    def _is_over(self, stream: str) -> bool:
        of_workflow = {"workflow_id": names.workflow_of_stream(stream)}
        records = self._store.find(names.PRODUCERS, of_workflow, fields=["producer_id", "closed_at"])
        closed = {record["producer_id"]: "closed_at" in record for record in records}
        heard = self._broker.ask("HKEYS", names.WorkflowKeys.of_stream(stream).beats)
        unclosed = {producer_id for producer_id, is_closed in closed.items() if not is_closed}
        unclosed |= {key.decode("utf-8", "replace") for key in heard} - closed.keys()
        return bool(closed) and (not unclosed or self._are_silent(of_workflow, unclosed))

    def _are_silent(self, of_workflow: dict[str, str], producers: Iterable[str]) -> bool:
        beats = self._store.find(names.BEATS, of_workflow, fields=["producer_id", "beat_at"])
        last = {beat["producer_id"]: clock.from_datetime(beat["beat_at"]) for beat in beats}
        oldest = self._broker.now_ms() - _SILENT_MS
        return all(producer_id in last and last[producer_id] < oldest for producer_id in producers)

    def _retire(self, stream: str) -> int:
        workflow_id = names.workflow_of_stream(stream)
        self._beats.copy([*self._registry.streams])
        self._store.compact_ledger(workflow_id)
        keys = names.WorkflowKeys.of_stream(stream)
        retired = self._broker.ask(
            "EVAL", scripts.RETIRE, 6, keys.registry, keys.stream, keys.beats, keys.spooled, keys.stored, keys.suspects,
            names.GROUP,
        )  # fmt: skip
        if retired:
            self._registry.drop(stream)
            log.info("workflow retired: workflow=%s", workflow_id)
        return int(retired)
