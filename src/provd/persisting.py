"""`provd.workflow(persist=True)`: the consumer's side in a thread of the traced program, for laptops.

The one place where both ends of the pipe meet in one process.

- It starts no server. Over Redis when there is one, else straight from this process' own spool into the store.
- Several processes may do so at once: over Redis they are consumers like any other; without it each brings in the
  files that it alone has written, and the store's own locks keep their writes apart.
- It never raises into the program, and at the workflow's end takes no longer than `FINISH_S`.
"""

from __future__ import annotations

import threading
from dataclasses import replace

from provd.common.errors import BrokerUnavailable, MissingExtra, ProvdError, StoreUnavailable
from provd.common.settings import Settings
from provd.common.spool import spool_files
from provd.producer.producer import Producer
from provd.producer.warning import warn_once

try:
    from provd.consumer.broker import Broker
    from provd.consumer.replay import replay_into_store
    from provd.consumer.service import Consumer
    from provd.store.interface import Store
    from provd.store.open import open_store
except ModuleNotFoundError as missing:
    raise MissingExtra("persist=True", "embedded") from missing

#: Seconds that the end of a workflow waits for its last records to be stored.
FINISH_S = 10.0

#: Seconds between two looks at the own spool.
_LOOK_S = 1.0


class Persisting:
    """Brings the records of one workflow into the store while it runs."""

    def __init__(self, workflow_id: str, producer: Producer) -> None:
        self._workflow_id = workflow_id
        self._producer = producer
        self._settings = _with_store(producer.settings)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="provd-persist", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def finish(self) -> None:
        """Wait until what was said is stored, for at most `FINISH_S` seconds; the rest waits for a consumer."""
        self._producer.sender.flush(FINISH_S)
        self._ended.set()
        self._thread.join(FINISH_S)

    def _run(self) -> None:
        try:
            while not self._try(last=self._ended.is_set()):
                self._ended.wait(_LOOK_S)
        except Exception as error:  # noqa: BLE001 - the thread's top level: the program must not notice
            warn_once("persist", f"persist=True stopped: {type(error).__name__}: {error}")

    def _try(self, *, last: bool) -> bool:
        """Persist to the end of the workflow; says whether that is over, one way or another."""
        try:
            self._persist()
        except StoreUnavailable as error:
            if not last:
                return False
            self._give_up(error)
        except ProvdError as error:
            self._give_up(error)
        return True

    def _give_up(self, error: ProvdError) -> None:
        warn_once("persist", f"persist=True: {error}; the records wait for a consumer or `provd replay`")

    def _persist(self) -> None:
        if self._redis_answers():
            self._consume()
        else:
            self._bring_in_spool()

    def _redis_answers(self) -> bool:
        url = self._settings.resolved_broker_url()
        if not url:
            return False
        try:
            Broker(url, connect_timeout_s=self._settings.connect_timeout_s).ping()
        except BrokerUnavailable:
            return False  # the producer spools, so the spool is where the records are
        return True

    def _consume(self) -> None:
        with Consumer.open(self._settings, workflow_ids=[self._workflow_id]) as consumer:
            consumer.run_until(self._ended)
            consumer.run_until_empty()

    def _bring_in_spool(self) -> None:
        store = open_store(self._settings.resolved_store_url())
        try:
            store.migrate()
            while not self._ended.wait(_LOOK_S):
                self._replay_own(store)
            self._replay_own(store)
        finally:
            store.close()

    def _replay_own(self, store: Store) -> None:
        """Bring in, and remove, the files that this process has written; no other writes to them."""
        self._producer.sender.seal_spool()
        folder = self._settings.spool_path
        for file in spool_files([folder]) if folder.is_dir() else ():
            if (
                file.name.startswith(f"{self._producer.id}.")
                and not replay_into_store([file], store).bad_lines
            ):
                file.unlink()


def start(workflow_id: str, producer: Producer) -> Persisting:
    """Bring a workflow's records into the store from now on. Raises `MissingExtra` where that is not installed."""
    persisting = Persisting(workflow_id, producer)
    persisting.start()
    return persisting


def _with_store(settings: Settings) -> Settings:
    """The user's store, else the embedded one: this is a laptop."""
    return (
        settings
        if settings.store_url
        else replace(settings, store_url=f"sqlite:///{settings.embedded_store}")
    )
