"""Spool files are 0600 in 0700 folders, and never where others may take them away (G8)."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from provd.common.errors import SpoolError
from provd.common.files import open_regular, private_folder
from provd.common.record import Kind, Message
from provd.common.spool import SpoolWriter, read_spool
from provd.consumer.setaside import SetAside
from provd.store.interface import Quarantined

MESSAGE = Message(Kind.WORKFLOW, "p", "w", 1, {"workflow_id": "w", "producer_id": "p", "seq": 1, "name": "x"})

#: A user that is nobody here.
STRANGER = 65_534


def writer(folder: Path) -> SpoolWriter:
    return SpoolWriter(folder, "p", ceiling_bytes=1 << 20, free_floor=0.0, hostname="h")


@pytest.fixture
def open_to_all(tmp_path: Path) -> Path:
    """A folder such as /tmp."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")


def test_files_are_0600_in_folders_of_0700_whatever_the_umask(tmp_path: Path) -> None:
    data = tmp_path / "data"
    before = os.umask(0)
    try:
        spool = writer(data / "spool")
        spool.write([MESSAGE])
        spool.close()
    finally:
        os.umask(before)

    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*.jsonl")}
    folders = {stat.S_IMODE(path.stat().st_mode) for path in (data, *data.rglob("*")) if path.is_dir()}
    assert (modes, folders) == ({0o600}, {0o700})


def test_a_folder_that_everybody_may_write_to_is_refused_with_what_mends_it(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    folder.chmod(0o777)

    with pytest.raises(SpoolError, match=rf"everybody may remove what is in {folder}: chmod o-w"):
        writer(folder).write([MESSAGE])

    folder.chmod(0o1777)  # sticky: everybody puts files there, and removes their own
    writer(folder).write([MESSAGE])


@as_root
@pytest.mark.parametrize("kind", ["folder", "link-to-theirs", "link-to-ours"])
def test_what_somebody_else_has_put_into_tmp_is_refused(kind: str, open_to_all: Path, tmp_path: Path) -> None:
    """Whoever knows the name of the folder to come could make it first, and own what is spooled."""
    place = open_to_all / "provd"
    if kind == "folder":
        place.mkdir(mode=0o755)
        os.chown(place, STRANGER, STRANGER)
    else:
        target = tmp_path / "target"
        target.mkdir()
        if kind == "link-to-theirs":
            os.chown(target, STRANGER, STRANGER)
        place.symlink_to(target)
        os.chown(place, STRANGER, STRANGER, follow_symlinks=False)

    with pytest.raises(SpoolError, match="belongs to another user, in a folder open to all"):
        writer(place / "spool").write([MESSAGE])


def test_a_link_of_this_users_own_is_followed(tmp_path: Path) -> None:
    """Homes are small: people put a link to the scratch file system there."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "spool").symlink_to(tmp_path / "scratch")

    writer(tmp_path / "spool").write([MESSAGE])

    assert list((tmp_path / "scratch").rglob("*.jsonl.open"))


@as_root
def test_the_folder_of_a_group_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.mkdir(mode=0o770)
    os.chown(folder, STRANGER, 0)

    private_folder(folder / "3f")

    assert stat.S_IMODE((folder / "3f").stat().st_mode) == 0o700


def test_a_file_of_the_same_name_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("")

    with pytest.raises(SpoolError, match="Not a directory"):
        writer(tmp_path / "spool").write([MESSAGE])


def test_a_pipe_or_a_device_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "link.jsonl").symlink_to("/dev/zero")

    for path in (tmp_path / "pipe.jsonl", tmp_path / "link.jsonl", Path("/dev/zero")):
        with pytest.raises(OSError, match="no regular file"):
            open_regular(path)
        with pytest.raises(SpoolError, match="no regular file"):
            list(read_spool(path))


def test_replay_of_a_pipe_a_device_and_a_loop_of_links_ends(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    os.mkfifo(folder / "pipe.jsonl")
    (folder / "zero.jsonl").symlink_to("/dev/zero")
    (folder / "loop.jsonl").symlink_to("loop.jsonl")
    (folder / "again").symlink_to(folder)
    spool = writer(folder)
    spool.write([MESSAGE])
    spool.close()

    done = subprocess.run(
        [sys.executable, "-m", "provd", "replay", "--store", f"sqlite:///{tmp_path}/s.db",
         str(folder), str(folder / "pipe.jsonl"), "/dev/zero"],
        capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip

    assert done.returncode == 1
    assert "no regular file" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


class _Synced:
    """What is synced, as the system is asked for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths: list[Path] = []
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self)

    def __call__(self, descriptor: int) -> None:
        self.paths.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        self._fsync(descriptor)

    def take(self) -> list[Path]:
        """Since the last time."""
        paths, self.paths = self.paths, []
        return paths


on_linux = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="what a descriptor is, Linux tells")


@on_linux
def test_a_spool_file_is_safe_with_its_name_and_the_folders_made_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G2: a file that was synced, in a folder that was not, can be gone after a power cut. Once for each file."""
    synced, spool = _Synced(monkeypatch), writer(tmp_path / "data" / "spool")
    spool.write([MESSAGE])
    assert synced.take() == []
    (path,) = (tmp_path / "data").rglob("*.open")

    spool.sync()
    assert synced.take()[:4] == [path, path.parent, path.parent.parent, tmp_path / "data"]
    spool.write([MESSAGE])
    spool.sync()
    assert synced.take() == [path]
    spool.close()
    assert synced.take() == [path]

    spool.write([MESSAGE])
    spool.close()
    assert path.parent in synced.take()


@on_linux
def test_a_quarantine_file_is_safe_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, aside = _Synced(monkeypatch), SetAside(tmp_path / "spool", "head-0", free_floor=0.0)
    aside.write([Quarantined("garbled", b"\0")])
    assert synced.take() == []
    (path,) = tmp_path.rglob("*.open")

    aside.sync()
    assert synced.take()[:3] == [path, path.parent, tmp_path / "spool"]
    aside.write([Quarantined("garbled", b"\1")])
    aside.close()
    assert synced.take() == [path]


def test_what_a_disk_did_not_confirm_is_not_appended_to(tmp_path: Path) -> None:
    """After a failed sync a later one may say that all is well, while the pages are gone."""
    spool = writer(tmp_path)
    spool.write([MESSAGE])
    (first,) = tmp_path.rglob("*.open")
    first.unlink()

    with pytest.raises(SpoolError, match="taken it away"):
        spool.sync()
    spool.write([MESSAGE])
    spool.sync()

    (second,) = tmp_path.rglob("*.open")
    assert len(list(read_spool(second))) == 1
