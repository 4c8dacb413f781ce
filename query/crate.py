"""A run as a Workflow Run RO-Crate of the profile Process Run Crate: a zip file.

- `ro-crate-metadata.json` is what `provd.query.crate_description` says, by the library `rocrate`, which holds it in
  memory: whence the limit.
- `run.jsonl` is the whole record, for `provd import`, which gives what the crate's terms have no place for. It is
  written as it is read.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from provd.common.errors import MissingExtra
from provd.query.crate_description import RECORD, Description
from provd.query.run_records import check_size, read_records
from provd.store.run_file import write_run

if TYPE_CHECKING:
    from provd.query.exports import Exported

#: Tasks of a run that becomes a crate.
TASKS_MAX = 50_000

#: The version of RO-Crate that the profile is written for.
CRATE_VERSION = "1.1"

_METADATA = "ro-crate-metadata.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)


def export_crate(run: Exported, path: Path) -> Mapping[str, Any]:
    """The run as a zip file that holds a crate."""
    try:
        from rocrate.rocrate import ROCrate
    except ModuleNotFoundError as error:
        raise MissingExtra("ro-crate", "export") from error
    check_size(run, TASKS_MAX, "ro-crate")
    records = read_records(run)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
        with archive.open(_member(RECORD), "w", force_zip64=True) as stream:
            counted = _Counted(stream)
            write_run(run.store, run.workflow_id, counted)  # type: ignore[arg-type]
        described = Description(ROCrate(version=CRATE_VERSION), records)
        told = described.describe(size=counted.size, sha256=counted.sha256)
        metadata = json.dumps(described.crate.metadata.generate(), indent=1, ensure_ascii=False)
        archive.writestr(_member(_METADATA), metadata.encode())
    return told


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, _EPOCH)
    member.compress_type = zipfile.ZIP_DEFLATED
    member.external_attr = 0o644 << 16
    return member


class _Counted:
    """A stream that knows how much was written, and its digest."""

    def __init__(self, stream: Any) -> None:
        self._stream: BinaryIO = stream
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        """Write, and count."""
        self._digest.update(data)
        self.size += len(data)
        return self._stream.write(data)

    @property
    def sha256(self) -> str:
        """The digest of all that was written."""
        return self._digest.hexdigest()
