"""The node sampler: what the whole node does, at a fixed interval, said by one of its processes.

- Per workflow one process of a node samples: the one that holds the workflow's lock there. The others ask for the lock
  once per interval, so that a sampler that dies is followed within one.
- The holder samples when it begins, at each interval, and once more when the workflow ends in it. So that there is
  one sample at least, a process whose thread had no time yet does it then.
- One daemon thread per process, from the first workflow that is sampled to the end of the last; it sleeps in between.
- A forked child does not sample: its parent does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from provd.common import clock
from provd.common.record import Record
from provd.producer.channel import Channel
from provd.producer.nodelock import NodeLock
from provd.producer.probe import GpuProbe, NodeProbe, import_psutil
from provd.producer.telemetry import differences
from provd.producer.warning import warn_once

#: Seconds that a program's end waits for a sample that is being taken. A GPU's driver may hang.
_PATIENCE_S = 0.5

#: Times that together are all the time of the node's processors.
_BUSY = ("user_s", "nice_s", "system_s", "steal_s")
_IDLE = ("idle_s", "iowait_s")


@dataclass(slots=True)
class _Watched:
    """A workflow that is sampled, if not by this process then by another."""

    channel: Channel
    lock: NodeLock
    #: How often this process is in it.
    uses: int = 1
    is_new: bool = True
    #: The sample before, and when it was taken (seconds of the monotonic clock).
    before: Record = field(default_factory=dict)
    moment: float = 0.0


class Sampler:
    """Samples the node for the workflows of this process."""

    def __init__(self, interval_s: float, wake: Callable[[], None]) -> None:
        """`wake` is called when there is a sample to send.

        What sampling needs is imported here, in the user's thread: a fork while our thread imports would leave the
        modules locked in the child.
        """
        self._interval_s = interval_s
        self._wake = wake
        self._watched: dict[str, _Watched] = {}
        self._lock = threading.Lock()
        self._bell = threading.Event()
        self._thread: threading.Thread | None = None
        psutil = import_psutil()
        self._probe = None if psutil is None else NodeProbe(psutil)
        self._gpus = GpuProbe(warn=False)

    def watch(self, channel: Channel) -> None:
        """Sample for a workflow from now on; called once for each time the process enters it."""
        if self._probe is None:
            return
        with self._lock:
            watched = self._watched.get(channel.workflow_id)
            if watched is not None:
                watched.uses += 1
                return
            self._watched[channel.workflow_id] = _Watched(channel, NodeLock(channel.workflow_id))
            if self._thread is None:
                self._start()
        self._bell.set()

    def release(self, channel: Channel) -> None:
        """Take the last sample for a workflow that ends here, and let another process of the node go on."""
        if not self._lock.acquire(timeout=_PATIENCE_S):
            return
        try:
            watched = self._watched.get(channel.workflow_id)
            if watched is None:
                return
            watched.uses -= 1
            if watched.uses == 0:
                del self._watched[channel.workflow_id]
                self._visit(watched)
                _let_go(watched.lock)
        finally:
            self._lock.release()
        self._bell.set()

    def abandon(self) -> None:
        """Leave everything to the parent, in the child after a fork."""
        for watched in self._watched.values():
            watched.lock.forget()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="provd-sampler", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return  # the interpreter is going down: the last sample is taken all the same
        self._thread = thread

    def _run(self) -> None:
        try:
            due = clock.monotonic() + self._interval_s
            while self._round(is_due=False):
                self._bell.wait(max(0.0, due - clock.monotonic()))
                self._bell.clear()
                now = clock.monotonic()
                if now >= due:
                    if not self._round(is_due=True):
                        return
                    due += self._interval_s * (1 + (now - due) // self._interval_s)
        except Exception as error:  # noqa: BLE001 - the thread's top level: the program must not notice
            warn_once("sampler", f"the sampler stopped ({type(error).__name__}: {error})")

    def _round(self, *, is_due: bool) -> bool:
        """Visit every workflow, or the new ones; False, and the thread ends, when none is left."""
        with self._lock:
            if not self._watched:
                self._thread = None
                return False
            for watched in self._watched.values():
                if is_due or watched.is_new:
                    watched.is_new = False
                    self._visit(watched)
            return True

    # --- with the lock ---

    def _visit(self, watched: _Watched) -> None:
        """Sample, if it is this process' part."""
        try:
            if not watched.lock.acquire():
                return
        except OSError as error:
            warn_once("sampler", f"no node samples: {error.strerror}: {watched.lock.path}")
            return
        moment = clock.monotonic()
        values = self._read()
        record: Record = {"sampled_at": clock.now_ms(), **values}
        if watched.before:
            record["delta"] = {"interval_s": moment - watched.moment, **_delta(watched.before, values)}
        watched.before, watched.moment = values, moment
        watched.channel.state_sample(record)
        self._wake()

    def _read(self) -> Record:
        values = {} if self._probe is None else self._probe.read(NodeProbe.GROUPS)
        gpus = self._gpus.read()
        return values | ({"gpu": gpus} if gpus else {})


def _delta(before: Record, now: Record) -> Record:
    """What changed since the sample before."""
    changed = differences(before, now)
    if "cpu" in before and "cpu" in now:
        busy, idle = (
            sum(now["cpu"].get(name, 0.0) - before["cpu"].get(name, 0.0) for name in names)
            for names in (_BUSY, _IDLE)
        )
        if busy + idle > 0:
            changed["cpu"] = {"busy_s": round(busy, 2), "percent": round(100 * busy / (busy + idle), 1)}
    return changed


def _let_go(lock: NodeLock) -> None:
    try:
        lock.release()
    except OSError as error:
        warn_once("sampler", f"{error.strerror}: {lock.path}")
