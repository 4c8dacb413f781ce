"""A consumer put together from its settings, as `provd consume` runs it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType

from provd.common.settings import Settings
from provd.consumer.absent import Absent
from provd.consumer.backlog import Backlog
from provd.consumer.beats import Beats
from provd.consumer.broker import Broker
from provd.consumer.chores import Chores
from provd.consumer.claims import Claims, Renewal
from provd.consumer.compaction import Compaction
from provd.consumer.completion import Completion, Outcome
from provd.consumer.fallback import Fallback
from provd.consumer.identity import Identity
from provd.consumer.metrics import Metrics
from provd.consumer.presence import Presence
from provd.consumer.progress import Progress, Tally
from provd.consumer.registry import Registry
from provd.consumer.retirement import Retirement
from provd.consumer.returning import Returning
from provd.consumer.streams import Streams
from provd.consumer.suspects import Suspects
from provd.consumer.worker import Limits, Worker
from provd.store.interface import Store
from provd.store.open import open_store

log = logging.getLogger("provd.consumer")

#: Frames and messages in one reading: more than a batch or two would only be kept from other consumers.
_BATCHES_AHEAD = 2
_TYPICAL_FRAME_MESSAGES = 100
_FEWEST_FRAMES = 16


class Consumer:
    """One consumer. Open it, run it, close it; `stop` may be called from a signal handler or another thread."""

    def __init__(
        self,
        settings: Settings,
        *,
        broker: Broker,
        store: Store,
        identity: Identity,
        workflow_ids: Sequence[str] = (),
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        """Takes over `broker`, `store` and `identity`, and closes them. `workflow_ids` empty means all."""
        self.name = identity.name
        self._identity = identity
        self._broker = broker
        self._store = store
        self._workflow_ids = tuple(workflow_ids)
        self._stop = threading.Event()
        self._tally = Tally()
        registry = Registry(
            broker, namespace=settings.namespace, buckets=settings.buckets, workflow_ids=workflow_ids
        )
        self._registry = registry
        streams = Streams(
            broker,
            registry,
            consumer=self.name,
            read_bytes=settings.batch_bytes,
            read_frames=max(
                _FEWEST_FRAMES, _BATCHES_AHEAD * settings.batch_messages // _TYPICAL_FRAME_MESSAGES
            ),
            read_messages=_BATCHES_AHEAD * settings.batch_messages,
        )
        # The name alone may come back in another namespace, with another store.
        spool_name = f"{self.name}.{settings.namespace}"
        beats = Beats(broker, store)
        presence = Presence(
            broker,
            store,
            self._tally,
            name=self.name,
            hostname=identity.hostname,
            workflow_ids=self._workflow_ids,
        )
        self._chores = Chores(
            tally=self._tally,
            registry=registry,
            streams=streams,
            beats=beats,
            retirement=Retirement(broker, registry, store, beats),
            presence=presence,
            backlog=Backlog(broker, self._tally),
            compaction=Compaction(store),
            absent=Absent(broker, consumer=self.name),
            on_progress=on_progress,
        )
        self._renewal = Renewal(broker, consumer=self.name, claim_after_s=settings.claim_after_s)
        self._worker = Worker(
            store=store,
            broker=broker,
            streams=streams,
            claims=Claims(
                broker, registry, streams, consumer=self.name, claim_after_s=settings.claim_after_s
            ),
            renewal=self._renewal,
            fallback=Fallback(
                streams,
                folder=settings.spool_path,
                name=spool_name,
                hostname=identity.hostname,
                ceiling_bytes=settings.spool_ceiling_bytes,
                free_floor=settings.spool_free_floor,
            ),
            returning=Returning(
                broker, registry, store, self._tally, folder=settings.spool_path, name=spool_name
            ),
            suspects=Suspects(broker, consumer=self.name),
            tally=self._tally,
            limits=Limits(
                settings.batch_messages, settings.batch_bytes, settings.batch_wait_s, settings.drain_share
            ),
            chores=self._chores,
        )
        self._metrics = (
            Metrics(settings.metrics_port, self._tally.snapshot) if settings.metrics_port else None
        )
        self._renewal.start()

    @classmethod
    def open(
        cls,
        settings: Settings,
        *,
        workflow_ids: Sequence[str] = (),
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Consumer:
        """Assemble from settings; no service need answer yet. Raises `SettingsError`, `MissingExtra`, `UnsafeStore`."""
        with ExitStack() as opened:
            broker = Broker(settings.resolved_broker_url(), connect_timeout_s=settings.connect_timeout_s)
            opened.callback(broker.close)
            store = open_store(settings.resolved_store_url())
            opened.callback(store.close)
            identity = opened.enter_context(Identity())
            consumer = cls(
                settings,
                broker=broker,
                store=store,
                identity=identity,
                workflow_ids=workflow_ids,
                on_progress=on_progress,
            )
            opened.pop_all()
        log.info("consumer started: name=%s broker=%s store=%s", consumer.name, broker.url, store.url)
        return consumer

    @property
    def progress(self) -> Progress:
        """What has been done so far."""
        return self._tally.snapshot()

    def run(self) -> None:
        """Work until `stop` is called."""
        self._worker.run_until(self._stop)

    def run_until(self, stop: threading.Event) -> None:
        """Work until `stop` is set."""
        self._worker.run_until(stop)

    def run_until_empty(self) -> None:
        """Work until every stream that there is now has been found empty."""
        self._registry.expire()
        self._worker.run_until_empty(self._stop)

    def run_until_done(self, *, grace_s: float) -> Outcome:
        """Work until the named workflows are complete, or nothing has happened for `grace_s` seconds.

        Raises the error of a service that has not answered once in that time.
        """
        completion = Completion(
            self._store,
            self._workflow_ids,
            grace_s=grace_s,
            waiting=lambda: sum(self._chores.measure().values()),
            activity=lambda: self._tally.moved + self._chores.beats_seen,
        )
        self._worker.run_while(completion.goes_on, self._stop, gives_up=completion.gives_up)
        if completion.outcome is not None and completion.outcome.unreachable is not None:
            raise completion.outcome.unreachable
        return completion.outcome or Outcome(False, ("stopped before the end",))

    def stop(self) -> None:
        """Finish the batch in hand and end. Called again, in a signal handler, it ends at once: what is in hand stays
        pending in Redis for the next consumer.
        """
        if self._stop.is_set():
            raise KeyboardInterrupt
        self._stop.set()

    def close(self) -> None:
        """Release connections, threads and the name; calling it twice is harmless."""
        self._renewal.stop()
        if self._metrics is not None:
            metrics, self._metrics = self._metrics, None
            metrics.close()
        self._store.close()
        self._broker.close()
        self._identity.close()

    def __enter__(self) -> Consumer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
