"""Consumer names are kept by locks, so that a consumer that is started again finds its own frames."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from provd.common.errors import SettingsError
from provd.consumer.identity import Identity, private_dir, runtime_dir


def test_the_lowest_free_slot_is_taken(tmp_path: Path) -> None:
    first, second, third = (Identity(tmp_path, hostname="h") for _ in range(3))
    second.close()

    with Identity(tmp_path, hostname="h") as again:
        assert [first.name, again.name, third.name] == ["h-0", "h-1", "h-2"]
    first.close()
    third.close()


def test_a_slot_is_free_when_its_process_was_killed(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from provd.consumer.identity import Identity\n"
        "mine = Identity(Path(sys.argv[1]), hostname='h'); print(mine.name, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )

    killed = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False
    )

    with Identity(tmp_path, hostname="h") as identity:
        assert (killed.stdout.strip(), identity.name) == ("h-0", "h-0")


def test_closing_twice_is_harmless(tmp_path: Path) -> None:
    identity = Identity(tmp_path)
    identity.close()
    identity.close()


def test_the_runtime_folder_is_the_one_of_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    assert runtime_dir() == tmp_path / "provd"
    assert (tmp_path / "provd").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")

    with pytest.raises(SettingsError, match="belongs to someone else"):
        private_dir(tmp_path / "link")
