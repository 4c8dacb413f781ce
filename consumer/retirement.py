"""Streams whose workflow has ended are removed, so that Redis holds what is going on and nothing else.

- Retired is only what is empty, has nothing pending, and whose every producer has closed in the store (or has been
  silent for a day), and of which no consumer's spool holds anything. The script checks Redis' part again, in one step.
- The stream of a deleted run goes when the run was deleted a day ago: until then its producers may still look for
  receipts there.
- A producer that comes late finds no stream and makes a new one: nothing is lost.
"""

from __future__ import annotations

import logging

from provd.common import clock, names
from provd.consumer import scripts
from provd.consumer.beats import Beats
from provd.consumer.broker import Broker, is_wrong_type
from provd.consumer.registry import Registry
from provd.store.interface import Store

log = logging.getLogger("provd.consumer")

#: Workflows asked about in one look, and of them those whose ledgers are compacted together.
_AT_ONCE = 500
_LEDGERS_AT_ONCE = 100

#: Seconds before a workflow that was not over is asked about again.
_ASK_AGAIN_S = 10.0

#: Silence after which a producer that never closed holds a stream no longer, in milliseconds.
_SILENT_MS = 24 * 3600 * 1000


class Retirement:
    """Removes the streams of ended workflows, some hundreds at a time."""

    def __init__(self, broker: Broker, registry: Registry, store: Store, beats: Beats) -> None:
        self._broker = broker
        self._registry = registry
        self._store = store
        self._beats = beats
        self._ask_at: dict[str, float] = {}
        #: Whether the last look left streams that are as good a guess as those it took.
        self.has_more = False

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
        asked = empty[:_AT_ONCE]
        self._ask_at |= dict.fromkeys(asked, now + _ASK_AGAIN_S)
        over = self._over(asked) if asked else {}
        retired = self._retire(over) if over else 0
        self.has_more = len(empty) > len(asked) and retired > 0
        return retired

    def _over(self, streams: list[str]) -> dict[str, int]:
        """Those of the streams whose workflows have ended, with how many producers' numbers a spool holds."""
        workflow_ids = [names.workflow_of_stream(stream) for stream in streams]
        closed: dict[str, set[str]] = {}
        unclosed: dict[str, set[str]] = {}
        found = self._store.find(
            names.PRODUCERS,
            {"workflow_id": {"$in": workflow_ids}},
            fields=["producer_id", "workflow_id", "closed_at"],
        )
        for record in found:
            known = closed if "closed_at" in record else unclosed
            known.setdefault(record["workflow_id"], set()).add(record["producer_id"])
        all_held: list[int] = []
        for workflow_id, (heard, held) in zip(workflow_ids, self._heard(streams), strict=True):
            all_held.append(len(held))
            # What a consumer holds in its spool is not over, whatever its producer has said.
            unclosed.setdefault(workflow_id, set()).update(heard - closed.get(workflow_id, set()), held)
        deleted = self._deleted(workflow_ids)
        spoken = closed.keys() | {one for one, producers in unclosed.items() if producers}
        silent = self._silent({one: producers for one, producers in unclosed.items() if producers})
        return {
            stream: held_of
            for stream, workflow_id, held_of in zip(streams, workflow_ids, all_held, strict=True)
            if workflow_id in deleted
            or (workflow_id in spoken and (not unclosed[workflow_id] or workflow_id in silent))
        }

    def _deleted(self, workflow_ids: list[str]) -> set[str]:
        """Those of the workflows that were deleted a day ago, of which the store will never hear a producer's end."""
        long_ago = clock.to_datetime(self._broker.now_ms() - _SILENT_MS)
        where = {"workflow_id": {"$in": workflow_ids}, "deleted_at": {"$lt": long_ago}}
        found = self._store.find(names.TOMBSTONES, where, fields=["workflow_id"])
        return {tombstone["workflow_id"] for tombstone in found}

    def _heard(self, streams: list[str]) -> list[tuple[set[str], set[str]]]:
        """Of each workflow, the producers that have a heartbeat, and those that a consumer's spool holds numbers of."""
        keys = [names.WorkflowKeys.of_stream(stream) for stream in streams]
        replies = self._broker.run([("HKEYS", key) for k in keys for key in (k.beats, k.spooled)])
        found = [
            set()
            if is_wrong_type(reply)
            else {key.decode("utf-8", "replace") for key in self._broker.sound(reply)}
            for reply in replies
        ]
        return list(zip(found[::2], found[1::2], strict=True))

    def _silent(self, unclosed: dict[str, set[str]]) -> set[str]:
        """The workflows all of whose producers have been silent for so long that they will not come back."""
        if not unclosed:
            return set()
        beats = self._store.find(
            names.BEATS,
            {"workflow_id": {"$in": list(unclosed)}},
            fields=["producer_id", "workflow_id", "beat_at"],
        )
        oldest = self._broker.now_ms() - _SILENT_MS
        gone: dict[str, set[str]] = {}
        for beat in beats:
            if clock.from_datetime(beat["beat_at"]) < oldest:
                gone.setdefault(beat["workflow_id"], set()).add(beat["producer_id"])
        return {one for one, producers in unclosed.items() if producers <= gone.get(one, set())}

    def _retire(self, held: dict[str, int]) -> int:
        streams = list(held)
        self._beats.copy_these(streams)
        workflow_ids = [names.workflow_of_stream(stream) for stream in streams]
        for start in range(0, len(workflow_ids), _LEDGERS_AT_ONCE):
            self._store.compact_ledger(*workflow_ids[start : start + _LEDGERS_AT_ONCE])
        replies = self._broker.run([_retire_command(stream, held[stream]) for stream in streams])
        retired = [
            stream for stream, reply in zip(streams, replies, strict=True) if self._broker.sound(reply) == 1
        ]
        self._registry.drop(*retired)
        for stream in retired:
            log.info("workflow retired: workflow=%s", names.workflow_of_stream(stream))
        return len(retired)


def _retire_command(stream: str, held: int) -> tuple[object, ...]:
    k = names.WorkflowKeys.of_stream(stream)
    keys = (k.registry, k.stream, k.beats, k.spooled, k.stored, k.suspects)
    return ("EVAL", scripts.RETIRE, len(keys), *keys, names.GROUP, held)
