"""What this process and its node use, read by `psutil` and the kernel. The one place that imports `psutil`.

- Processor times and context switches come from `getrusage`: all threads, in microseconds, for one system call.
  (`/proc` counts in hundredths of a second.)
- Disk readings of the process are those of `/proc/<pid>/io`: counters of block devices miss Lustre and other
  parallel file systems. `read_bytes` and `written_bytes` are what went through read and write calls, from whatever
  cache; `storage_…` what reached a storage layer.
- Network counters are the node's, without the loopback interface. RDMA traffic is not in them: the kernel does not
  see it.
- What cannot be read is absent, with one warning; nothing here raises.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from importlib import import_module
from typing import Any

from provd.common.errors import MissingExtra
from provd.common.record import Record
from provd.producer.gpu import Gpus, GpuUnavailable, import_libraries, open_gpus
from provd.producer.warning import warn_once


def import_psutil() -> Any:
    """The module, or None, with one warning, where it is not installed or does not load."""
    try:
        return import_module("psutil")
    except ImportError as error:
        installed = not isinstance(error, ModuleNotFoundError)
        why = f"psutil: {error}" if installed else str(MissingExtra("telemetry", "telemetry"))
        warn_once("telemetry", f"{why}; the program goes on without telemetry")
        return None


def read_cpu() -> Record:
    """Seconds of processor time: this process with all its threads, and the children it has waited for."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "user_s": round(own.ru_utime, 6),
        "system_s": round(own.ru_stime, 6),
        "children_user_s": round(children.ru_utime, 6),
        "children_system_s": round(children.ru_stime, 6),
    }


class _Probe:
    """Readings by group, each on its own feet."""

    def __init__(self, psutil: Any) -> None:
        self._psutil = psutil
        self._errors = (psutil.Error, OSError, NotImplementedError, AttributeError, ValueError)
        self._readers: dict[str, Callable[[], Any]] = {}

    def read(self, groups: tuple[str, ...]) -> Record:
        """The groups that can be read."""
        reading: Record = {}
        for group in groups:
            reader = self._readers.get(group)
            if reader is None:
                continue
            try:
                values = reader()
            except self._errors as error:
                warn_once(f"telemetry {group}", f"no {group} readings: {type(error).__name__}: {error}")
                continue
            if values:
                reading[group] = values
        return reading

    def _network(self) -> Record:
        # Without `nowrap=False` psutil remembers every counter under a lock, for kernels of 32 bits.
        cards = self._psutil.net_io_counters(pernic=True, nowrap=False)
        outside = [card for name, card in cards.items() if name != "lo"]
        return {
            "sent_bytes": sum(card.bytes_sent for card in outside),
            "received_bytes": sum(card.bytes_recv for card in outside),
        }


class ProcessProbe(_Probe):
    """This process: `memory`, `disk`, `process`, and `network` and `gpu` of its node. `cpu` is `read_cpu`."""

    def __init__(self, psutil: Any) -> None:
        super().__init__(psutil)
        self._process = psutil.Process()
        self._host_bytes = psutil.virtual_memory().total
        self._readers = {
            "memory": self._memory,
            "disk": self._disk,
            "network": self._network,
            "process": self._threads,
        }

    def _memory(self) -> Record:
        info = self._process.memory_info()
        return {
            "rss_bytes": info.rss,
            "vms_bytes": info.vms,
            "percent": round(100 * info.rss / self._host_bytes, 3),
        }

    def _disk(self) -> Record:
        counters = self._process.io_counters()
        return {
            "read_bytes": counters.read_chars,
            "written_bytes": counters.write_chars,
            "storage_read_bytes": counters.read_bytes,
            "storage_written_bytes": counters.write_bytes,
            "read_calls": counters.read_count,
            "write_calls": counters.write_count,
        }

    def _threads(self) -> Record:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "threads": self._process.num_threads(),
            "open_files": self._process.num_fds(),
            "voluntary_switches": usage.ru_nvcsw,
            "involuntary_switches": usage.ru_nivcsw,
        }


class NodeProbe(_Probe):
    """The node: `cpu`, `memory`, `disk` and `network`. Its disk counters are those of local block devices."""

    GROUPS = ("cpu", "memory", "disk", "network")

    def __init__(self, psutil: Any) -> None:
        super().__init__(psutil)
        self._readers = {
            "cpu": self._cpu,
            "memory": self._memory,
            "disk": self._disk,
            "network": self._network,
        }

    def _cpu(self) -> Record:
        times = self._psutil.cpu_times()
        reading = {
            f"{name}_s": getattr(times, name) for name in ("user", "nice", "system", "idle", "iowait", "steal")
            if hasattr(times, name)
        }  # fmt: skip
        return reading | {"count": os.cpu_count(), "load_1min": os.getloadavg()[0]}

    def _memory(self) -> Record:
        memory = self._psutil.virtual_memory()
        return {
            "total_bytes": memory.total,
            "available_bytes": memory.available,
            "used_bytes": memory.used,
            "percent": memory.percent,
        }

    def _disk(self) -> Record | None:
        counters = self._psutil.disk_io_counters(nowrap=False)  # None on a node without disks
        if counters is None:
            return None
        return {"read_bytes": counters.read_bytes, "written_bytes": counters.write_bytes}


class GpuProbe:
    """The GPUs that this process can read: the libraries are imported at once, the driver is asked on first use."""

    def __init__(self, *, warn: bool) -> None:
        """`warn` says, once, why there are none to read."""
        self._warn = warn
        self._libraries = import_libraries()
        self._gpus: list[Gpus] | None = None

    def read(self) -> list[Record]:
        """One reading per device."""
        if self._gpus is None:
            self._gpus = self._open()
        return [reading for gpus in self._gpus for reading in gpus.read()]

    def _open(self) -> list[Gpus]:
        try:
            return open_gpus(self._libraries)
        except GpuUnavailable as reason:
            if self._warn:
                warn_once("gpu", f"no GPU readings: {reason}")
            return []
