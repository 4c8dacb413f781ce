"""The loop: read, write, enter in the ledger, acknowledge, report.

Invariants:

- A frame is acknowledged only after all it held is in the store, in quarantine, or in the consumer's synced spool,
  and after the ledger has it.
- When a service fails, what is in hand is forgotten, not lost: it is pending in Redis and is read again. Writing it a
  second time changes nothing.
- The loop ends only when told to. It never ends because a service is away, unless who runs it gives up on that.
- What is of a deleted run is acknowledged, too: the store counts it and does not keep it.
- A frame that has been delivered often is processed alone (`suspects`), after the batch: others are not held up by it.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from provd.common import clock
from provd.common.errors import BrokerUnavailable, ProvdError, SpoolError, StoreError, StoreUnavailable
from provd.consumer.batch import Batch, affected, keep_books
from provd.consumer.broker import SAFE_POLICY, Broker
from provd.consumer.chores import Chores
from provd.consumer.claims import Claims, Renewal
from provd.consumer.fallback import Fallback
from provd.consumer.outage import Outage, let_go
from provd.consumer.progress import REDIS, STORE, Tally
from provd.consumer.returning import Returning
from provd.consumer.streams import Entry, Streams
from provd.consumer.suspects import NotOurs, Suspects, is_suspect
from provd.store.interface import Store, Written

log = logging.getLogger("provd.consumer")

#: Shortest and longest wait, in seconds, between two looks at streams that had nothing.
_SHORT_WAIT_S = 0.02
_LONG_WAIT_S = 0.2

#: Frames of a later schema that are put aside at a time.
_NEWER_FRAMES = 1000

#: Streams that are remembered as warned of.
_WARNED_STREAMS = 1000

#: While live frames flow, a slice of the own spool is this much smaller than a batch.
_SLICES = 8


@dataclass(frozen=True, slots=True)
class Limits:
    """When a batch is written, and when a consumer without a store starts to spool."""

    messages: int
    bytes: int
    wait_s: float
    drain_share: float


class Worker:
    """One consumer's loop. Not for use by two threads at once."""

    def __init__(
        self,
        *,
        store: Store,
        broker: Broker,
        streams: Streams,
        claims: Claims,
        renewal: Renewal,
        fallback: Fallback,
        returning: Returning,
        suspects: Suspects,
        tally: Tally,
        limits: Limits,
        chores: Chores,
    ) -> None:
        self._store = store
        self._broker = broker
        self._streams = streams
        self._claims = claims
        self._renewal = renewal
        self._fallback = fallback
        self._returning = returning
        self._suspects = suspects
        self._tally = tally
        self._limits = limits
        self._chores = chores
        self._in_hand: deque[Entry] = deque()
        self._suspected: deque[Entry] = deque()
        self._ready = False
        self._breaks = broker.breaks
        self._warned_streams: set[str] = set()
        self._policy_seen = ""
        self._store_outage = Outage("the store", "frames wait in Redis")
        self._broker_outage = Outage("Redis", "producers spool")

    def run_until(self, stop: threading.Event) -> None:
        """Work until `stop` is set; the batch in hand is finished first."""
        self.run_while(lambda: True, stop)

    def run_until_empty(self, stop: threading.Event | None = None) -> None:
        """Work until every stream has been found empty in one round; frames of other consumers may be pending."""
        self.run_while(lambda: False, stop or threading.Event())

    def run_while(
        self,
        goes_on: Callable[[], bool],
        stop: threading.Event,
        *,
        gives_up: Callable[[ProvdError], bool] = lambda _: False,
    ) -> None:
        """Work until there is nothing to read and `goes_on` says no, or until `stop` is set. `gives_up` is asked
        while a service is away, and ends the work by saying yes.
        """
        idle_rounds = 0
        while not stop.is_set():
            try:
                idle_rounds = 0 if self.step(stop) or self._bring_back() else idle_rounds + 1
                self._chores.tell()
                self._chores.do()
                if idle_rounds and not goes_on():
                    break
            except (StoreUnavailable, StoreError, BrokerUnavailable) as error:
                let_go(error)
                if gives_up(error) or not self._wait_for(error, stop, gives_up):
                    break
            else:
                if idle_rounds:
                    stop.wait(min(_SHORT_WAIT_S * 2 ** min(idle_rounds, 8), _LONG_WAIT_S))
        self._end()

    def step(self, stop: threading.Event) -> bool:
        """Take one batch from the streams to the store, then what must go alone; says whether there was anything."""
        self._look_again()
        busy = self._through(self._read(stop))
        # What was found on a connection that was lost meanwhile is not all there is.
        return self._alone() or busy or self._broker.breaks != self._breaks

    def _through(self, batch: Batch) -> bool:
        written = self._write(batch)
        self._keep_books(batch, written)
        self._acknowledge(batch)
        return self._report(batch, written)

    def _alone(self) -> bool:
        """Take one frame that may be poison to where it belongs."""
        if not self._suspected:
            return False
        entry = self._suspected.popleft()
        self._store.ping()
        try:
            with self._suspects.under_watch(entry) as sentence:
                batch = Batch()
                if sentence is None:
                    self._add(batch, entry)
                else:
                    batch.condemn(entry, sentence)
                self._through(batch)
        except NotOurs:
            log.info("a frame went to another consumer: stream=%s entry=%s", entry.stream, entry.entry_id)
        return True

    def _bring_back(self) -> bool:
        """Take a slice of the own spool to the store; says whether there was one."""
        share = _SLICES if self._in_hand else 1
        if not self._returning.step(max(1, self._limits.messages // share)):
            return False
        self._store_outage.over()
        return True

    # --- the five lines ---------------------------------------------------------------------------------------

    def _read(self, stop: threading.Event) -> Batch:
        self._prepare()
        batch = Batch()
        deadline = 0.0
        while (
            len(batch.messages) < self._limits.messages
            and batch.size < self._limits.bytes
            and len(batch.newer) < _NEWER_FRAMES
        ):
            if not self._in_hand:
                if (batch.entries or batch.newer) and not self._suspected and self._claims.are_due:
                    break  # after a claim what is in hand would be read again
                self._fill()
            if self._in_hand:
                self._add(batch, self._in_hand.popleft())
                deadline = deadline or clock.monotonic() + self._limits.wait_s
            elif not batch.entries or clock.monotonic() >= deadline or stop.wait(_SHORT_WAIT_S):
                break
        return batch

    def _write(self, batch: Batch) -> Written:
        self._renewal.hold([*batch.entries, *self._in_hand, *self._suspected])
        if not batch.messages:
            return Written(0, 0)
        started = clock.monotonic()
        written = self._store.write(batch.messages, received_at=self._chores.now_ms())
        self._tally.add(batches=1, write_s=clock.monotonic() - started)
        self._store_outage.over()
        return written

    def _keep_books(self, batch: Batch, written: Written) -> None:
        batch.quarantined, entries = keep_books(self._store, batch.messages, batch.quarantined, written)
        self._chores.note_ledger(entries)

    def _acknowledge(self, batch: Batch) -> None:
        self._streams.acknowledge(batch.entries, batch.receipts, store_id=self._store.identity())
        self._streams.put_aside(batch.newer)
        self._renewal.hold([*self._in_hand, *self._suspected])

    def _report(self, batch: Batch, written: Written) -> bool:
        quarantined = sum(affected(item) for item in batch.quarantined)
        self._broker_outage.over()
        self._tally.say("running")
        self._tally.add(
            received=len(batch.messages) + quarantined - len(written.refused),
            stored=written.stored,
            duplicates=written.duplicates,
            quarantined=quarantined,
            refused=sum(written.gone.values()),
        )
        if written.gone:
            log.info(
                "messages of deleted runs refused: messages=%d runs=%s",
                sum(written.gone.values()),
                ",".join(written.gone),
            )
        if batch.quarantined:
            log.warning("quarantined: messages=%d reason=%s", quarantined, batch.quarantined[0].reason)
        return bool(batch.entries or batch.newer)

    # --- reading ----------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Before the first frame, and after the store was away: nothing new is read until this has gone well."""
        if self._ready:
            return
        self._check_policy()
        for name in self._store.migrate():
            log.info("store migrated: migration=%s", name)
        self._seal()
        self._returning.look()
        self._ready = True

    def _seal(self) -> None:
        try:
            self._fallback.close()
        except SpoolError as error:
            log.warning("own spool cannot be closed: %s", error)

    def _check_policy(self) -> None:
        policy = self._broker.memory().policy
        if policy not in ("", SAFE_POLICY, self._policy_seen):
            log.warning(
                "Redis %s has maxmemory-policy %s: it may evict frames that are not stored yet;"
                " run `redis-cli CONFIG SET maxmemory-policy noeviction` and set it in redis.conf",
                self._broker.url,
                policy,
            )
        self._policy_seen = policy

    def _fill(self) -> None:
        if not self._suspected:
            self._claims.look()
        for entry in self._streams.read():
            (self._suspected if is_suspect(entry) else self._in_hand).append(entry)

    def _add(self, batch: Batch, entry: Entry) -> None:
        known = len(batch.newer)
        batch.add(entry)
        if len(batch.newer) > known and entry.stream not in self._warned_streams:
            if len(self._warned_streams) >= _WARNED_STREAMS:
                self._warned_streams.clear()
            self._warned_streams.add(entry.stream)
            log.error(
                "frames of a later schema stay in Redis, upgrade this consumer: stream=%s schema=%d",
                entry.stream,
                batch.newer[-1][1],
            )

    # --- trouble ----------------------------------------------------------------------------------------------

    def _look_again(self) -> None:
        """After a lost connection Redis may have been restarted without the end of its file: what it had been told was
        acknowledged is then pending under our name again. The client connects anew without a word.
        """
        if self._broker.breaks == self._breaks:
            return
        self._breaks = self._broker.breaks
        self._forget()
        self._streams.start_over()
        self._claims.hold_off()

    def _wait_for(
        self, error: ProvdError, stop: threading.Event, gives_up: Callable[[ProvdError], bool]
    ) -> bool:
        is_broker = isinstance(error, BrokerUnavailable)
        wait = self._wait_for_broker if is_broker else self._wait_for_store
        is_worth_it = wait(error, stop, gives_up)
        self._claims.hold_off()
        return is_worth_it

    def _wait_for_store(
        self, error: ProvdError, stop: threading.Event, gives_up: Callable[[ProvdError], bool]
    ) -> bool:
        self._forget()
        self._ready = False
        self._tally.say(f"waiting for the store, {error}")
        self._tally.lose(STORE)
        return self._store_outage.wait(
            error, stop, probe=self._store.ping, each=lambda: self._meanwhile(stop), gives_up=gives_up
        )

    def _wait_for_broker(
        self, error: ProvdError, stop: threading.Event, gives_up: Callable[[ProvdError], bool]
    ) -> bool:
        self._forget()
        self._tally.say(f"waiting for Redis, {error}")
        self._tally.lose(REDIS)
        self._chores.lapse()
        return self._broker_outage.wait(
            error, stop, probe=self._broker.ping, each=self._chores.tell, gives_up=gives_up
        )

    def _meanwhile(self, stop: threading.Event) -> None:
        """The store is away: leave frames in Redis as long as it has room, then spool."""
        self._chores.tell()
        try:
            while not stop.is_set() and self._broker.memory().share > self._limits.drain_share:
                entries = self._streams.read()
                if not entries:
                    break
                self._spool([entry for entry in entries if not is_suspect(entry)])
                for entry in filter(is_suspect, entries):
                    self._spool_alone(entry)
                self._chores.tell()
        except BrokerUnavailable as error:
            log.warning("Redis does not answer either: %s", error)
        except SpoolError as error:
            log.warning("frames stay in Redis: %s", error)
        finally:
            self._streams.rewind()

    def _spool(self, entries: list[Entry], *, condemned: str | None = None) -> None:
        batch, spooled = self._fallback.take(
            entries, held_bytes=self._returning.held_bytes, condemned=condemned
        )
        self._streams.put_aside(batch.newer)
        pieces = sum(map(affected, batch.quarantined))
        self._tally.add(received=spooled + pieces, spooled=spooled + pieces)

    def _spool_alone(self, entry: Entry) -> None:
        try:
            with self._suspects.under_watch(entry) as sentence:
                self._spool([entry], condemned=sentence)
        except NotOurs:
            log.info("a frame went to another consumer: stream=%s entry=%s", entry.stream, entry.entry_id)

    def _forget(self) -> None:
        """What is in hand stays pending in Redis, and is read again when all is well."""
        self._in_hand.clear()
        self._suspected.clear()
        self._renewal.hold(())
        self._streams.rewind()

    def _end(self) -> None:
        """Leave things so that others can go on. What fails here is redone by whoever comes next."""
        in_hand = (*self._in_hand, *self._suspected)
        self._forget()
        for last_duty in (self._fallback.close, lambda: self._claims.release(in_hand), self._last_chores):
            try:
                last_duty()
            except ProvdError as error:
                log.warning("stopped while a service is away: %s", error)
        self._chores.tell(now=True)

    def _last_chores(self) -> None:
        if self._ready:
            self._chores.finish()
