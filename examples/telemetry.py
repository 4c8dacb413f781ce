"""Telemetry: what tasks use, by the task; and what the node does, by the clock.

Needs the extra "telemetry". Try also `PROVD_TELEMETRY=true` with any other example, and `PROVD_SAMPLE_INTERVAL_S=10`.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import provd


@provd.task(telemetry=True)
def checksum(folder: Path, megabytes: int) -> dict[str, str]:
    """Processor time, memory, disk, network and threads: read at the start, at the end, and the difference."""
    file = folder / "block"
    file.write_bytes(bytes(megabytes << 20))
    return {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


@provd.task(telemetry=("cpu", "memory"))
def square(n: int) -> int:
    """Two groups are cheaper than all; a thousand of these share their readings of memory."""
    return n * n


HAS_GPU = Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists()


@provd.task(telemetry=["gpu"] if HAS_GPU else False)
def train(epochs: int) -> int:
    """Memory, utilisation, temperature and power of each GPU. Asked for where there is none it is one warning."""
    return epochs


with tempfile.TemporaryDirectory() as name, provd.workflow("telemetry") as workflow:
    checksum(Path(name), 64)
    for n in range(1000):
        square(n)
    train(3)
    with provd.Task("by hand", telemetry="cpu") as task:
        task.generated(sum=sum(range(1_000_000)))

print(f"recorded as {workflow.workflow_id}; ask, for example:")
print(
    """provd query tasks '{"telemetry_at_end.delta.cpu.user_s": {"$gt": 0.01}}' --fields activity_id,duration"""
)
