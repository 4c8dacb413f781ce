"""A spool that has no room left while Redis is away: what is dropped is counted, and the count is shown.

G5. The test is run with `durability: memory` and `durability: disk`.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import RunProvd
from tests.faults.ending import HEAD
from tests.services.redis_server import RedisServer
from tests.streams import Script


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of 256 KiB."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs", str(folder)],
        check=False, capture_output=True,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("only root may mount a small file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


FILLING = """
with provd.workflow("w", workflow_id="w1"):
    step("before")
    provd.flush(30)
    tell("flushed")
    sys.stdin.readline()
    for n in range(400):
        step(str(n) + 2000 * "x")
    provd.flush(1)
    tell("spooled")
    sys.stdin.readline()
    step("after")
tell("end")
"""


@pytest.mark.parametrize("limit", ["disk", "file_size"])
def test_a_full_spool_disk_while_redis_is_away_drops_and_counts_and_the_count_is_shown(
    script: Script, private_redis: Callable[..., RedisServer], run_provd: RunProvd, tmp_path: Path,
    durability: str, limit: str,
) -> None:  # fmt: skip
    """G5: at the disk's ceiling messages are dropped and counted, and the count is shown; the program goes on."""
    # Given a program whose spool takes 256 KiB, and a Redis that itself loses nothing
    server = private_redis(config={"appendfsync": "always"})
    spool = tmp_path / "spool"
    services = {
        "PROVD_BROKER_URL": server.url, "PROVD_NAMESPACE": "t", "PROVD_SPOOL_DIR": str(spool),
        "PROVD_DURABILITY": durability, "PROVD_SPOOL_FREE_FLOOR": "0", "PROVD_BUFFER_BYTES": str(1 << 20),
        "PROVD_EXIT_DRAIN_S": "30", "PROVD_STORE_URL": f"sqlite:///{tmp_path}/provd.db",
    }  # fmt: skip
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (262144, 262144))\n"
    source = HEAD + (limited if limit == "file_size" else "") + FILLING
    with small_disk(spool) if limit == "disk" else contextlib.nullcontext():
        process = script.start(source, env=services)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "flushed\n"

        # When Redis goes away, the spool is full, and Redis comes back
        server.kill()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "spooled\n"
        server.start()
        output, errors = process.communicate("\n", timeout=60)

        # Then the program has done its work, one line says what happened
        assert (process.returncode, output) == (0, "end\n"), errors
        assert "Traceback" not in errors

        # And every number is stored or counted
        run_provd("consume", "-w", "w1", "--exit-when-done", "--grace", "1", env=services)
        run_provd("replay", str(spool), "--recover", "--store", services["PROVD_STORE_URL"], env=services)
        verified = json.loads(run_provd("runs", "verify", "w1", "--json", env=services).stdout)
    assert verified["missing"] == 0, (verified, errors)
    assert verified["stored"] + verified["dropped"] == verified["produced"] >= 403, (verified, errors)
    if limit == "disk":
        assert verified["dropped"] > 0
        assert "dropped" in errors
