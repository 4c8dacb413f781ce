"""`provd doctor` before real services, set up well and badly."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from provd.cli.check_machine import file_system_of
from tests.conftest import RunProvd
from tests.services.redis_server import RedisServer


def levels(done: CompletedProcess[str]) -> dict[str, str]:
    """Level by check, of a doctor's JSON."""
    return {check["check"]: check["level"] for check in map(json.loads, done.stdout.splitlines())}


#: Nothing is asked of a broker, and the store is one that nobody has made yet.
NO_SERVICES = ("--broker", "", "--store", "sqlite:///new.db", "--json")


@pytest.fixture
def lasting_folder() -> Iterator[Path]:
    """A folder that is not among those for temporary files."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        yield Path(folder)


def test_services_that_are_set_up_well_are_ok(
    run_provd: RunProvd, private_redis: Callable[..., RedisServer], mongo_url: str, lasting_folder: Path
) -> None:
    redis = private_redis(
        config={
            "appendonly": "yes",
            "maxmemory": "100mb",
            "maxmemory-policy": "noeviction",
            "maxclients": "2000",
        }
    )

    done = run_provd(
        "doctor", "--broker", redis.url, "--store", mongo_url, "--json",
        env={"PROVD_SPOOL_DIR": str(lasting_folder)},
    )  # fmt: skip

    found = levels(done)
    for check in (
        "broker",
        "broker eviction",
        "broker memory",
        "broker persistence",
        "store",
        "spool",
        "versions",
    ):
        assert found[check] == "ok", done.stdout
    assert done.returncode == 0


def test_a_redis_that_evicts_is_failed_with_the_fix(
    run_provd: RunProvd, private_redis: Callable[..., RedisServer], tmp_path: Path
) -> None:
    redis = private_redis(config={"maxmemory-policy": "allkeys-lru", "appendonly": "no"})

    done = run_provd(
        "doctor", "--broker", redis.url, "--store", f"sqlite:///{tmp_path}/new.db", env={"COLUMNS": "80"}
    )

    assert done.returncode == 1
    assert "failed" in done.stdout
    assert "maxmemory-policy noeviction" in " ".join(done.stdout.split())
    assert "appendonly yes" in " ".join(done.stdout.split())
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert not (tmp_path / "new.db").exists()


def test_a_service_that_is_away_is_unreachable_and_exits_3(run_provd: RunProvd, tmp_path: Path) -> None:
    done = run_provd(
        "doctor",
        "--broker",
        "redis://:secret@127.0.0.1:1/0",
        "--store",
        f"sqlite:///{tmp_path}/new.db",
        "--json",
    )

    assert levels(done)["broker"] == "unreachable"
    assert "secret" not in done.stdout + done.stderr
    assert done.returncode == 3


def test_a_spool_folder_that_cannot_be_made_is_failed(run_provd: RunProvd, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    done = run_provd(
        "doctor", "--broker", "", "--store", f"sqlite:///{tmp_path}/new.db", "--json",
        env={"PROVD_SPOOL_DIR": str(tmp_path / "file" / "spool")},
    )  # fmt: skip

    assert levels(done)["spool"] == "failed"
    assert done.returncode == 1


@pytest.mark.parametrize("variable", ["PROVD_SPOOL_DIR", "TMPDIR"])
def test_a_spool_folder_that_others_empty_is_a_warning(
    run_provd: RunProvd, lasting_folder: Path, variable: str
) -> None:
    """Under /tmp, or under the $TMPDIR of a job: a spool there is gone before anyone has brought it in."""
    env = {"PROVD_SPOOL_DIR": str(lasting_folder / "spool")}
    env[variable] = str(lasting_folder) if variable == "TMPDIR" else "/tmp/provd-spool"

    done = run_provd("doctor", *NO_SERVICES, env=env)

    assert levels(done)["spool"] == "warning", done.stdout


@pytest.mark.parametrize(
    ("text", "mode", "level"),
    [
        ("broker_url: redis://user:hunter2@h/0", 0o644, "warning"),
        ("store_password: hunter2", 0o640, "warning"),
        ("store_password: hunter2", 0o600, "ok"),
        ("broker_url: redis://h/0", 0o644, None),
    ],
)
def test_a_settings_file_with_a_password_that_others_may_read_is_a_warning(
    run_provd: RunProvd, tmp_path: Path, text: str, mode: int, level: str | None
) -> None:
    file = tmp_path / "provd.yaml"
    file.write_text(text + "\n")
    file.chmod(mode)

    done = run_provd("--settings", str(file), "doctor", *NO_SERVICES)

    assert levels(done).get("settings file") == level, done.stdout
    assert "hunter2" not in done.stdout + done.stderr


def test_the_file_system_of_a_path_is_that_of_the_longest_mount_above_it(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    home = tmp_path.resolve()
    mounts.write_text(f"a / ext4 rw 0 0\nb {home} nfs4 rw 0 0\nc {home}/with\\040blank lustre rw 0 0\n")

    assert file_system_of(home / "x", str(mounts)) == "nfs4"
    assert file_system_of(home / "with blank" / "x", str(mounts)) == "lustre"
    assert file_system_of(Path("/"), str(mounts)) == "ext4"
    assert file_system_of(home, str(tmp_path / "none")) == "unknown"
