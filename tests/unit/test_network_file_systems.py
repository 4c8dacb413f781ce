"""The embedded store refuses file systems that hosts share."""

from __future__ import annotations

from pathlib import Path

import pytest

from provd.common.errors import UnsafeStore
from provd.store.network_file_systems import file_system_of, is_network_type, refuse_network_file_system

MOUNTINFO = r"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:21 / /proc rw,nosuid - proc proc rw
31 22 0:30 / /home rw,relatime shared:5 master:2 - nfs4 server:/home rw,vers=4.2
32 31 0:31 / /home/ada/local rw - xfs /dev/sdb1 rw
33 22 0:32 / /scratch rw - lustre 10.0.0.1@o2ib:/scratch rw
34 22 0:33 / /mnt/a\040folder rw - cifs //server/share rw
35 22 0:34 / /auto rw - autofs systemd-1 rw
36 35 0:35 / /auto rw - ext4 /dev/sdc1 rw
37 22 0:36 / /remote rw - fuse.sshfs ada@host: rw
garbled line
38 22 0:37 / /broken rw
"""


@pytest.mark.parametrize(
    ("path", "mount", "kind"),
    [
        ("/var/lib/provd.db", "/", "ext4"),
        ("/home/ada/provd.db", "/home", "nfs4"),
        ("/home", "/home", "nfs4"),
        ("/homes/ada/provd.db", "/", "ext4"),
        ("/home/ada/local/provd.db", "/home/ada/local", "xfs"),
        ("/mnt/a folder/provd.db", "/mnt/a folder", "cifs"),
        ("/auto/x", "/auto", "ext4"),
        ("/broken/x", "/", "ext4"),
    ],
)
def test_the_longest_and_last_mount_holds_a_path(path: str, mount: str, kind: str) -> None:
    assert file_system_of(path, MOUNTINFO) == (mount, kind)


@pytest.mark.parametrize(
    "kind",
    [
        "nfs",
        "nfs4",
        "lustre",
        "gpfs",
        "beegfs",
        "beegfs_nodev",
        "ceph",
        "cephfs",
        "cifs",
        "smb3",
        "wekafs",
        "panfs",
        "orangefs",
        "9p",
        "afs",
        "fuse.sshfs",
        "fuse.glusterfs",
        "fuse.ceph",
        "fuse.s3fs",
        "dfuse",
        "pvfs2",
    ],
)
def test_a_file_system_that_hosts_share_is_recognised(kind: str) -> None:
    assert is_network_type(kind)


@pytest.mark.parametrize(
    "kind",
    [
        "ext4",
        "xfs",
        "btrfs",
        "zfs",
        "tmpfs",
        "overlay",
        "f2fs",
        "fuseblk",
        "fuse.fuse-overlayfs",
        "ramfs",
        "",
    ],
)
def test_a_local_file_system_passes(kind: str) -> None:
    assert not is_network_type(kind)


def test_the_refusal_names_the_place_and_both_ways_out() -> None:
    with pytest.raises(UnsafeStore) as refused:
        refuse_network_file_system(Path("/scratch/ada/provd.db"), MOUNTINFO)

    assert "lustre, mounted at /scratch" in str(refused.value)
    assert "PROVD_DATA_DIR" in str(refused.value)
    assert "mongodb://" in str(refused.value)


def test_a_link_to_a_network_file_system_is_followed(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "shared")
    mountinfo = f"1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:9 / {tmp_path}/shared rw - nfs4 server:/ rw\n"

    with pytest.raises(UnsafeStore):
        refuse_network_file_system(tmp_path / "link" / "provd.db", mountinfo)


def test_without_mountinfo_every_place_passes() -> None:
    refuse_network_file_system(Path("/anywhere/provd.db"), "")
