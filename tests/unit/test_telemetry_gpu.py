"""GPUs: what is made of the vendors' answers, and what happens where there is nothing to ask.

The answers are written down from the libraries' own structures. No GPU has been read by these tests.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import provd
from provd.producer import gpu, telemetry
from provd.producer.gpu import GpuUnavailable, amd_reading, import_libraries, nvidia_reading, open_gpus
from provd.producer.telemetry import differences
from provd.testing import captured

HAS_NVIDIA = Path("/dev/nvidiactl").exists()
HAS_AMD = Path("/dev/kfd").exists()
SOURCE = Path(gpu.__file__).read_text()

without_a_gpu = pytest.mark.skipif(HAS_NVIDIA or HAS_AMD, reason="this machine has a GPU")


def test_what_nvml_answers_becomes_a_reading() -> None:
    pynvml = pytest.importorskip("pynvml", exc_type=ImportError)
    memory = pynvml.c_nvmlMemory_t(total=85_899_345_920, free=83_751_862_272, used=2_147_483_648)
    utilization = pynvml.c_nvmlUtilization_t(gpu=87, memory=31)

    reading = nvidia_reading(
        0,
        name="NVIDIA A100-SXM4-80GB",
        uuid=b"GPU-4f1c",
        memory=memory,
        utilization=utilization,
        temperature=64,
        power=312_450,
    )

    assert reading == {
        "index": 0,
        "vendor": "nvidia",
        "name": "NVIDIA A100-SXM4-80GB",
        "uuid": "GPU-4f1c",
        "memory_used_bytes": 2_147_483_648,
        "memory_total_bytes": 85_899_345_920,
        "utilization_percent": 87,
        "temperature_celsius": 64,
        "power_watts": 312.45,
    }


def test_what_nvml_refuses_is_absent() -> None:
    reading = nvidia_reading(
        1,
        name="MIG 1g.10gb",
        uuid=None,
        memory=SimpleNamespace(used=1, total=2),
        utilization=None,
        temperature=None,
        power=None,
    )

    assert reading == {
        "index": 1, "vendor": "nvidia", "name": "MIG 1g.10gb", "memory_used_bytes": 1, "memory_total_bytes": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("power", "watts"),
    [
        ({"current_socket_power": 182, "average_socket_power": "N/A", "socket_power": 182}, 182),
        ({"current_socket_power": "N/A", "average_socket_power": 94}, 94),
        ({"socket_power": 61}, 61),
    ],
)
@pytest.mark.parametrize("temperature", [47, 47_000])
def test_what_amdsmi_answers_becomes_a_reading(
    power: dict[str, object], watts: int, temperature: int
) -> None:
    reading = amd_reading(
        3,
        asic={"market_name": "AMD Instinct MI250X", "vendor_name": "Advanced Micro Devices"},
        uuid="b9ff740c-0000",
        memory_used=10_485_760,
        memory_total=68_702_699_520,
        activity={"gfx_activity": 12, "umc_activity": 3, "mm_activity": "N/A"},
        temperature=temperature,
        power=power,
    )

    assert reading == {
        "index": 3,
        "vendor": "amd",
        "name": "AMD Instinct MI250X",
        "uuid": "b9ff740c-0000",
        "memory_used_bytes": 10_485_760,
        "memory_total_bytes": 68_702_699_520,
        "utilization_percent": 12,
        "temperature_celsius": 47,
        "power_watts": watts,
    }


def test_what_amdsmi_refuses_or_does_not_know_is_absent() -> None:
    reading = amd_reading(
        0, asic=None, uuid="", memory_used=None, memory_total="N/A", activity={"gfx_activity": "N/A"},
        temperature=None, power=None,
    )  # fmt: skip

    assert reading == {"index": 0, "vendor": "amd"}


def test_the_difference_of_two_readings_is_the_memory_by_device() -> None:
    def device(vendor: str, index: int, used: int | None) -> dict[str, object]:
        return {"vendor": vendor, "index": index} | ({} if used is None else {"memory_used_bytes": used})

    start = {"gpu": [device("nvidia", 0, 100), device("nvidia", 1, None), device("amd", 0, 7)]}
    end = {"gpu": [device("nvidia", 0, 350), device("nvidia", 1, 9), device("amd", 0, 4)]}

    assert differences(start, end) == {
        "gpu": [
            {"vendor": "nvidia", "index": 0, "memory_used_bytes": 250},
            {"vendor": "amd", "index": 0, "memory_used_bytes": -3},
        ]
    }


def test_nvml_has_every_function_that_is_asked() -> None:
    pynvml = pytest.importorskip("pynvml", exc_type=ImportError)

    asked = set(re.findall(r"\b(nvml[A-Z]\w+)", SOURCE))

    assert len(asked) >= 9
    assert [name for name in asked if not hasattr(pynvml, name)] == []
    assert pynvml.NVML_TEMPERATURE_GPU == gpu._NVML_TEMPERATURE_GPU


@without_a_gpu
def test_without_a_package_the_line_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)

    with pytest.raises(GpuUnavailable) as raised:
        open_gpus(import_libraries())

    assert 'pip install "provd[gpu-nvidia]"' in str(raised.value)
    assert "AMD: no /dev/kfd" in str(raised.value)


def test_with_amds_driver_and_without_its_package_the_line_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "kfd").touch()
    monkeypatch.setattr(gpu, "_AMD_DRIVER", str(tmp_path / "kfd"))
    monkeypatch.setitem(sys.modules, "amdsmi", None)

    libraries = import_libraries()

    assert libraries.smi is None
    assert 'AMD needs pip install "provd[gpu-amd]"' in libraries.reasons


@without_a_gpu
def test_without_a_driver_nvmls_own_words_are_given() -> None:
    pytest.importorskip("pynvml", exc_type=ImportError)

    with pytest.raises(GpuUnavailable, match="NVML: NVML Shared Library Not Found"):
        open_gpus(import_libraries())


@without_a_gpu
def test_a_task_that_asks_for_gpus_where_there_are_none_runs_and_is_recorded() -> None:
    telemetry._forget()

    @provd.task(telemetry=["gpu"])
    def train() -> int:
        return os.getpid()

    with captured() as capture, provd.workflow("w"):
        assert train() == train() == os.getpid()

    assert [sorted(key for key in task if key.startswith("telemetry")) for task in capture.tasks()] == [
        [],
        [],
    ]
