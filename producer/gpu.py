"""Readings of GPUs: NVIDIA by NVML (`nvidia-ml-py`), AMD by `amdsmi`.

- A vendor's library is imported when GPUs are asked for, never before.
- What a device or driver does not support is absent from its reading; the rest is there.
- All devices that the driver shows to this process are read. `CUDA_VISIBLE_DEVICES` does not hide one from NVML; the
  `uuid` says which is which.

A reading: `index`, `vendor`, `name`, `uuid`, `memory_used_bytes`, `memory_total_bytes`, `utilization_percent`,
`temperature_celsius`, `power_watts`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from provd.common.record import Record

#: The device of AMD's driver. Where there is none `amdsmi` is not imported: without ROCm's library it prints so to the
#: program's own stdout.
_AMD_DRIVER = "/dev/kfd"

#: What importing `amdsmi` raises: its wrapper looks its shared library up in a dict, and its symbols in that.
_IMPORT_ERRORS = (ImportError, OSError, KeyError, AttributeError)

#: What a library of another version than ours may raise beside its own errors. The program must not see them (G1).
_ODD_ERRORS = (AttributeError, TypeError, ValueError, KeyError, OSError)

#: NVML's only temperature sensor.
_NVML_TEMPERATURE_GPU = 0

#: No GPU is this hot in degrees: from here on `amdsmi` speaks of thousandths, as its C library does.
_MILLIDEGREES_FROM = 1000


class GpuUnavailable(Exception):
    """No GPU can be read here; the message says what was tried."""


class Gpus(Protocol):
    """The GPUs of one vendor on this node."""

    def read(self) -> list[Record]:
        """One reading per device. What cannot be read is absent."""


@dataclass(frozen=True, slots=True)
class Libraries:
    """The vendors' libraries that could be imported, and why the others could not."""

    nvml: Any | None
    smi: Any | None
    reasons: tuple[str, ...]


def import_libraries() -> Libraries:
    """Import what is installed. In a thread of the user's: a fork in the middle would leave modules locked."""
    nvml = smi = None
    reasons = []
    try:
        nvml = import_module("pynvml")
    except ImportError:
        reasons.append('NVIDIA needs pip install "provd[gpu-nvidia]"')
    if not os.path.exists(_AMD_DRIVER):
        reasons.append(f"AMD: no {_AMD_DRIVER}")
    else:
        try:
            smi = import_module("amdsmi")
        except ModuleNotFoundError:
            reasons.append('AMD needs pip install "provd[gpu-amd]"')
        except _IMPORT_ERRORS as error:
            reasons.append(f"amdsmi: {error}")
    return Libraries(nvml, smi, tuple(reasons))


def open_gpus(libraries: Libraries) -> list[Gpus]:
    """The GPUs that this process can read. Raises `GpuUnavailable` when there are none."""
    found: list[Gpus] = []
    reasons = list(libraries.reasons)
    for vendor, library in ((NvidiaGpus, libraries.nvml), (AmdGpus, libraries.smi)):
        if library is None:
            continue
        try:
            found.append(vendor(library))
        except GpuUnavailable as reason:
            reasons.append(str(reason))
    if not found:
        raise GpuUnavailable("; ".join(reasons))
    return found


class NvidiaGpus:
    """NVIDIA's, by NVML."""

    def __init__(self, nvml: Any) -> None:
        """Raises `GpuUnavailable` without the driver or a device."""
        try:
            nvml.nvmlInit()
            handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        except (nvml.NVMLError, *_ODD_ERRORS) as error:
            raise GpuUnavailable(f"NVML: {error}") from error
        if not handles:
            raise GpuUnavailable("NVML: no device")
        self._nvml = nvml
        self._handles = [
            (handle, self._ask("nvmlDeviceGetName", handle), self._ask("nvmlDeviceGetUUID", handle))
            for handle in handles
        ]

    def read(self) -> list[Record]:
        """One reading per device."""
        ask = self._ask
        return [
            nvidia_reading(
                index,
                name=name,
                uuid=uuid,
                memory=ask("nvmlDeviceGetMemoryInfo", handle),
                utilization=ask("nvmlDeviceGetUtilizationRates", handle),
                temperature=ask("nvmlDeviceGetTemperature", handle, _NVML_TEMPERATURE_GPU),
                power=ask("nvmlDeviceGetPowerUsage", handle),
            )
            for index, (handle, name, uuid) in enumerate(self._handles)
        ]

    def _ask(self, question: str, *args: Any) -> Any:
        try:
            return getattr(self._nvml, question)(*args)
        except (self._nvml.NVMLError, *_ODD_ERRORS):
            return None  # not supported by this device or library, or lost meanwhile


def nvidia_reading(
    index: int, *, name: Any, uuid: Any, memory: Any, utilization: Any, temperature: Any, power: Any
) -> Record:
    """A reading from NVML's answers, None for those it refused: memory in bytes, power in milliwatts."""
    return _present(
        {
            "index": index,
            "vendor": "nvidia",
            "name": _text(name),
            "uuid": _text(uuid),
            "memory_used_bytes": None if memory is None else memory.used,
            "memory_total_bytes": None if memory is None else memory.total,
            "utilization_percent": None if utilization is None else utilization.gpu,
            "temperature_celsius": temperature,
            "power_watts": None if power is None else power / 1000,
        }
    )


class AmdGpus:
    """AMD's, by `amdsmi`."""

    def __init__(self, smi: Any) -> None:
        """Raises `GpuUnavailable` without the driver or a device."""
        try:
            smi.amdsmi_init()
            handles = smi.amdsmi_get_processor_handles()
            enums = (
                smi.AmdSmiMemoryType.VRAM,
                smi.AmdSmiTemperatureType.HOTSPOT,
                smi.AmdSmiTemperatureMetric.CURRENT,
            )
        except (smi.AmdSmiException, *_ODD_ERRORS) as error:
            raise GpuUnavailable(f"amdsmi: {' '.join(str(error).split())}") from error
        if not handles:
            raise GpuUnavailable("amdsmi: no device")
        self._smi = smi
        self._enums = enums
        self._handles = [
            (
                handle,
                self._ask("amdsmi_get_gpu_asic_info", handle),
                self._ask("amdsmi_get_gpu_device_uuid", handle),
            )
            for handle in handles
        ]

    def read(self) -> list[Record]:
        """One reading per device."""
        ask = self._ask
        vram, hotspot, current = self._enums
        return [
            amd_reading(
                index,
                asic=asic,
                uuid=uuid,
                memory_used=ask("amdsmi_get_gpu_memory_usage", handle, vram),
                memory_total=ask("amdsmi_get_gpu_memory_total", handle, vram),
                activity=ask("amdsmi_get_gpu_activity", handle),
                temperature=ask("amdsmi_get_temp_metric", handle, hotspot, current),
                power=ask("amdsmi_get_power_info", handle),
            )
            for index, (handle, asic, uuid) in enumerate(self._handles)
        ]

    def _ask(self, question: str, *args: Any) -> Any:
        try:
            return getattr(self._smi, question)(*args)
        except (self._smi.AmdSmiException, *_ODD_ERRORS):
            return None  # not supported by this device or library, or lost meanwhile


def amd_reading(
    index: int,
    *,
    asic: Mapping[str, Any] | None,
    uuid: Any,
    memory_used: Any,
    memory_total: Any,
    activity: Mapping[str, Any] | None,
    temperature: Any,
    power: Mapping[str, Any] | None,
) -> Record:
    """A reading from amdsmi's answers, None for those it refused: memory in bytes, power in watts, "N/A" for unknown.

    Which of its powers a device states depends on its family: current, average or plain.
    """
    watts = [_number((power or {}).get(f"{kind}socket_power")) for kind in ("current_", "average_", "")]
    celsius = _number(temperature)
    if celsius is not None and celsius >= _MILLIDEGREES_FROM:
        celsius /= 1000
    return _present(
        {
            "index": index,
            "vendor": "amd",
            "name": _text((asic or {}).get("market_name")),
            "uuid": _text(uuid),
            "memory_used_bytes": _number(memory_used),
            "memory_total_bytes": _number(memory_total),
            "utilization_percent": _number((activity or {}).get("gfx_activity")),
            "temperature_celsius": celsius,
            "power_watts": next((value for value in watts if value is not None), None),
        }
    )


def _present(reading: Record) -> Record:
    return {name: value for name, value in reading.items() if value is not None}


def _number(value: Any) -> int | float | None:
    return value if isinstance(value, (int, float)) else None


def _text(value: Any) -> str | None:
    """Text as the library gives it; old ones give bytes."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return value if isinstance(value, str) and value not in {"", "N/A"} else None
