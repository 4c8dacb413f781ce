"""The file that holds a run: everything that a store knows of it, as lines of tagged JSON (`provd.common.values`).

line                                              what
{"provd_export": 1, "workflow_id": …, …}          the first: the version of this format, the run, when and by whom
{"collection": "tasks", "document": {…}}          a document, as the store has it; collections in the order of `ORDER`
{"end": {"tasks": 17, …}, "sha256": "…"}          the last: documents by collection, and the digest of all lines before

- Several files in one, one behind the other, are a file, too.
- Ranges of the ledger come last, and were read first: what they claim is among the documents above.
- A reader sees that something is missing or changed: by the digest, the counts, and the last line itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from provd.common import clock, names, values
from provd.common.errors import BadExport
from provd.common.files import open_regular
from provd.common.record import Record
from provd.store import whole
from provd.store.documents import range_document
from provd.store.interface import Store, Stored

#: The version of the format. Later versions of provd read all earlier ones.
VERSION = 1

#: The collections of a run, in the order in which a file has them.
ORDER = (
    names.WORKFLOWS, names.PRODUCERS, names.TASKS, names.SAMPLES, names.BEATS, names.QUARANTINE, names.LEDGER,
)  # fmt: skip

#: Bytes of a line that is read: a part of a quarantined piece, or the largest record of the embedded store.
_LINE_BYTES_MAX = 64 << 20


class Item(NamedTuple):
    """A line of a file that holds a document; `end` is the last line of a run, whose `document` is the counts."""

    number: int
    workflow_id: str
    collection: str
    document: Record
    end: bool = False


def write_run(store: Store, workflow_id: str, stream: BinaryIO) -> dict[str, int]:
    """Write all that a store has of a run; returns the documents by collection.

    It may be done while the run goes on: the copy never claims more than it holds.
    """
    file = _Writer(stream)
    ledger = store.stored_ranges(workflow_id)
    file.line(
        {
            "provd_export": VERSION,
            "workflow_id": workflow_id,
            "exported_at": clock.to_datetime(clock.now_ms()),
        }
    )
    counts = dict.fromkeys(ORDER, 0)
    for collection in ORDER[:-1]:
        for document in store.find(collection, {"workflow_id": workflow_id}):
            file.document(collection, document)
            counts[collection] += 1
    for producer_id, spans in ledger.items():
        for first, last in spans:
            file.document(names.LEDGER, range_document(Stored(producer_id, workflow_id, first, last)))
            counts[names.LEDGER] += 1
    file.line({"end": counts, "sha256": file.digest.hexdigest()})
    return counts


class _Writer:
    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()

    def document(self, collection: str, document: Record) -> None:
        if collection != names.QUARANTINE:
            document.pop("_id", None)  # it repeats other fields
        self.line({"collection": collection, "document": document})

    def line(self, document: Record) -> None:
        line = values.to_json(document).encode() + b"\n"
        self.digest.update(line)
        self._stream.write(line)


def read_runs(path: Path) -> Iterator[Item]:
    """The documents of a file, checked one by one, and after those of each run its end.

    Raises `BadExport`, which names the line, as soon as something is wrong: what came before must not be relied on
    until the end of its run has come.
    """
    try:
        with open_regular(path) as stream:
            yield from _Reader(path, stream).items()
    except OSError as error:
        raise BadExport(f"{path}: {error.strerror or error}") from error


class _Reader:
    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self._path = path
        self._stream = stream
        self._number = 0
        self._digest = hashlib.sha256()

    def items(self) -> Iterator[Item]:
        while (header := self._next()) is not None:
            yield from self._run(self._workflow_id(header))
        if not self._number:
            raise self._bad("the file is empty")

    def _run(self, workflow_id: str) -> Iterator[Item]:
        counts: Record = dict.fromkeys(ORDER, 0)
        while True:
            so_far = self._digest.copy()
            line = self._next()
            if line is None:
                self._number += 1
                raise self._bad("the file ends before the run does: it was cut off")
            if "end" in line:
                if line.get("sha256") != so_far.hexdigest() or line["end"] != counts:
                    raise self._bad("the run is not as it was written: its digest differs")
                self._digest = hashlib.sha256()
                yield Item(self._number, workflow_id, "", counts, end=True)
                return
            collection, document = line.get("collection"), line.get("document")
            if collection not in ORDER or not isinstance(document, dict):
                raise self._bad("no line of an export of this version")
            try:
                about = whole.check(collection, document)
            except (ValueError, OverflowError, RecursionError) as error:
                raise self._bad(f"no document of {collection}: {error}") from error
            if about != workflow_id:
                raise self._bad(f"a document of another run, {about!r:.80}")
            counts[collection] += 1
            yield Item(self._number, workflow_id, collection, document)

    def _workflow_id(self, header: dict[str, Any]) -> str:
        version, workflow_id = header.get("provd_export"), header.get("workflow_id")
        if type(version) is not int or not isinstance(workflow_id, str):
            raise self._bad("not the beginning of an export of provd (spool files are for `provd replay`)")
        if version > VERSION:
            raise self._bad(f"version {version} of the format; this provd reads up to {VERSION}: upgrade it")
        return workflow_id

    def _next(self) -> dict[str, Any] | None:
        line = self._stream.readline(_LINE_BYTES_MAX + 1)
        if not line:
            return None
        self._number += 1
        if not line.endswith(b"\n"):
            long = len(line) > _LINE_BYTES_MAX
            raise self._bad("too long a line" if long else "the line has no end: the file was cut off")
        self._digest.update(line)
        try:
            document = values.from_json(line)
        except ValueError as error:
            raise self._bad(f"cannot be read: {error}") from error
        if not isinstance(document, dict):
            raise self._bad("no line of an export")
        return document

    def _bad(self, reason: str) -> BadExport:
        return BadExport(f"{self._path}:{self._number}: {reason}")
