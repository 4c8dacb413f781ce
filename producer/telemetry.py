"""Telemetry of a task: what its process used, at its start, at its end and in between.

- This module is imported when a task asks for telemetry, and `psutil` by the first reading.
- Processor time is read anew each time (two system calls). Everything else is shared by all tasks of the process for
  `FRESH_S`: a thousand short tasks do not each pay.
- A difference covers the time between the two readings, which `delta.interval_s` states: up to `FRESH_S` more or less
  than the task at either end. A task whose start and end share one reading has no difference but that of processor
  time; it is absent rather than zero (G6).
- Readings are those of the process: tasks that run at the same time in its threads share them.
- Nothing here raises (G1).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from provd.common import clock
from provd.common.record import Record
from provd.common.telemetry import groups_of
from provd.producer.probe import GpuProbe, ProcessProbe, import_psutil, read_cpu
from provd.producer.warning import warn_once

#: Seconds for which a reading serves every task that asks. A full reading takes some 60 µs, so that reading every
#: 50 ms costs about 0.1 % of a core, however short the tasks are; and people think in tenths of a second.
FRESH_S = 0.05

#: Of these values, a process' or a node's, the difference means something; of `memory` and `process` it may be
#: negative.
_DIFFERENCES = {
    "memory": ("rss_bytes", "vms_bytes", "used_bytes"),
    "disk": ("read_bytes", "written_bytes", "storage_read_bytes", "storage_written_bytes", "read_calls",
             "write_calls"),
    "network": ("sent_bytes", "received_bytes"),
    "process": ("threads", "open_files", "voluntary_switches", "involuntary_switches"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """What was read, and when (seconds of the monotonic clock)."""

    moment: float
    values: Record


class Reading:
    """The readings of one task: made at its start, closed at its end."""

    __slots__ = ("_cpu", "_groups", "_shared")

    def __init__(self, groups: tuple[str, ...], shared: _Snapshot) -> None:
        self._groups = groups
        self._shared = shared
        self._cpu = _cpu() if "cpu" in groups else None

    def close(self) -> Record:
        """The fields of the record, with a second reading. The differences stand with it."""
        cpu = _cpu() if self._cpu is not None else None
        shared = _shared(self._groups) or self._shared
        delta: Record = {}
        if self._cpu is not None and cpu is not None:
            delta["cpu"] = _cpu_delta(self._cpu, cpu)
        if shared is not self._shared and shared.values:
            delta["interval_s"] = shared.moment - self._shared.moment
            delta.update(differences(self._shared.values, shared.values))
        start, end = _fields(self._cpu, self._shared), _fields(cpu, shared)
        if not end:
            return {}  # nothing could be read
        return {"telemetry_at_start": start, "telemetry_at_end": {**end, "delta": delta} if delta else end}


def chosen(asked: bool | str | Iterable[str]) -> tuple[str, ...]:  # noqa: FBT001 - users write True
    """The groups that a decorator asks for; none, with a warning, when it asks for what there is not."""
    try:
        return groups_of(asked)
    except (ValueError, TypeError) as error:
        warn_once(f"telemetry {asked!r}", f"telemetry={asked!r}: {error}; its tasks carry no telemetry")
        return ()


def read_start(groups: tuple[str, ...]) -> Reading | None:
    """Begin the readings of a task; None where nothing can be read."""
    shared = _shared(groups)
    return None if shared is None else Reading(groups, shared)


def differences(start: Record, end: Record) -> Record:
    """What changed between two readings, by group; of GPUs their memory, by index."""
    changed: Record = {}
    for group, names in _DIFFERENCES.items():
        before, after = start.get(group, {}), end.get(group, {})
        values = {name: after[name] - before[name] for name in names if name in before and name in after}
        if values:
            changed[group] = values
    used = {
        _device(gpu): gpu["memory_used_bytes"] for gpu in start.get("gpu", ()) if "memory_used_bytes" in gpu
    }
    gpus = [
        {
            "index": gpu["index"],
            "vendor": gpu["vendor"],
            "memory_used_bytes": gpu["memory_used_bytes"] - used[_device(gpu)],
        }
        for gpu in end.get("gpu", ())
        if _device(gpu) in used and "memory_used_bytes" in gpu
    ]
    return changed | ({"gpu": gpus} if gpus else {})


def _device(gpu: Record) -> tuple[str, int]:
    return gpu["vendor"], gpu["index"]


# --- this process' probes and its latest readings --------------------------------------------------------------

_probe: ProcessProbe | None = None
_gpus: GpuProbe | None = None
_psutil_missing = False
_latest: dict[tuple[str, ...], _Snapshot] = {}


def _shared(groups: tuple[str, ...]) -> _Snapshot | None:
    """A reading of everything but processor time that is at most `FRESH_S` old."""
    now = clock.monotonic()
    latest = _latest.get(groups)
    if latest is not None and now - latest.moment < FRESH_S:
        return latest
    values = _read(groups)
    if values is None:
        return None
    latest = _latest[groups] = _Snapshot(now, values)
    return latest


def _read(groups: tuple[str, ...]) -> Record | None:
    """One reading of all; None without psutil, unless it is GPUs alone that are asked for."""
    global _gpus
    values: Record = {}
    if groups != ("gpu",):
        probe = _open_probe()
        if probe is None:
            return None
        values = probe.read(groups)
    if "gpu" in groups:
        _gpus = _gpus or GpuProbe(warn=True)
        gpus = _gpus.read()
        if gpus:
            values["gpu"] = gpus
    return values


def _open_probe() -> ProcessProbe | None:
    """The probe of this process; None without psutil."""
    global _probe, _psutil_missing
    if _probe is None and not _psutil_missing:
        psutil = import_psutil()
        if psutil is None:
            _psutil_missing = True
        else:
            _probe = ProcessProbe(psutil)
    return _probe


def _cpu() -> tuple[float, Record]:
    return clock.monotonic(), read_cpu()


def _cpu_delta(start: tuple[float, Record], end: tuple[float, Record]) -> Record:
    used = {name: round(end[1][name] - value, 6) for name, value in start[1].items()}
    elapsed = end[0] - start[0]
    if elapsed > 0:
        # Of one core, so that two busy threads make 200.
        used["percent"] = round(100 * (used["user_s"] + used["system_s"]) / elapsed, 1)
    return used


def _fields(cpu: tuple[float, Record] | None, shared: _Snapshot) -> Record:
    return shared.values if cpu is None else {"cpu": cpu[1], **shared.values}


def _forget() -> None:
    """A forked child is another process, and drivers' connections do not survive the fork."""
    global _probe, _gpus
    _probe = _gpus = None
    _latest.clear()


os.register_at_fork(after_in_child=_forget)
