"""Which folders are on a network file system, where the embedded store would not be safe.

SQLite's write-ahead log needs locks and shared memory that all processes see; network file systems do not give them
across hosts, and several do not give them at all.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from provd.common.errors import UnsafeStore

_NETWORK_TYPES = frozenset(
    {
        "9p",
        "acfs",
        "afs",
        "autofs",
        "beegfs",
        "ceph",
        "cephfs",
        "cifs",
        "coda",
        "cvmfs2",
        "daos",
        "dfuse",
        "gfs2",
    }
    | {
        "glusterfs",
        "gpfs",
        "lustre",
        "mmfs",
        "ncp",
        "ncpfs",
        "ocfs2",
        "orangefs",
        "panfs",
        "pvfs2",
        "quobyte",
    }
    | {"smb", "smb2", "smb3", "smbfs", "vast", "virtiofs", "wekafs"}
)
_NETWORK_PREFIXES = ("nfs", "beegfs", "lustre", "gpfs", "ceph", "wekafs", "panfs", "smb")

#: FUSE file systems are taken for network ones, save those known to be local.
_LOCAL_FUSE = frozenset(
    {"fuse.bindfs", "fuse.encfs", "fuse.fuse-overlayfs", "fuse.gocryptfs", "fuse.mergerfs", "fuse.ntfs-3g"}
    | {"fuse.overlayfs", "fuse.squashfuse", "fuse.unionfs", "fuse.unionfs-fuse", "fuse.lxcfs", "fuse.portal"}
)

_OCTAL = re.compile(r"\\([0-7]{3})")


def is_network_type(kind: str) -> bool:
    """Whether a file system type, as the kernel names it, is shared between hosts."""
    if kind == "fuseblk" or kind in _LOCAL_FUSE:
        return False
    return kind in _NETWORK_TYPES or kind.startswith(("fuse.", *_NETWORK_PREFIXES))


def file_system_of(path: str, mountinfo: str) -> tuple[str, str]:
    """The mount point and the type of the file system that holds an absolute path, by the text of mountinfo.

    Where several are mounted on one point the last one hides the others. ("/", "") where the text names none.
    """
    found = ("/", "")
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        fields = before.split(" ")
        if not separator or len(fields) < 5 or not after:
            continue
        mount = _OCTAL.sub(lambda match: chr(int(match.group(1), 8)), fields[4])
        if _is_within(path, mount) and len(mount) >= len(found[0]):
            found = (mount, after.split(" ")[0])
    return found


def _is_within(path: str, mount: str) -> bool:
    return path == mount or path.startswith(mount if mount.endswith("/") else mount + "/")


def refuse_network_file_system(path: Path, mountinfo: str | None = None) -> None:
    """Raise `UnsafeStore` where a file must not be an embedded store. Without mountinfo (not Linux) all pass."""
    if mountinfo is None:
        mountinfo = _read_mountinfo()
    mount, kind = file_system_of(os.path.realpath(path), mountinfo)
    if is_network_type(kind):
        raise UnsafeStore(
            f"{path} is on a network file system ({kind}, mounted at {mount}), where the embedded store could lose"
            " records: set PROVD_DATA_DIR to a folder on a local disk, or use MongoDB (PROVD_STORE_URL=mongodb://…)"
        )


def _read_mountinfo() -> str:
    try:
        return Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
