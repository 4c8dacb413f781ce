"""Spool files read back as records, without any service."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from provd.common.errors import MissingExtra, SpoolError
from provd.common.record import Kind, Message, Record, merge, to_document
from provd.common.spool import read_spool, spool_files

#: Bookkeeping that a reader of one file has no use for.
_HIDDEN = frozenset({"announced", "filled"})


def read_jsonl(
    path: str | os.PathLike[str],
    *,
    kind: str = "task",
    workflow_id: str | None = None,
    as_frame: bool = False,
) -> Any:
    """The records of a spool file, or of all files below a folder, as they would be in the store.

    Messages about one thing are merged into one record; times are aware UTC datetimes. `kind` is `task`, `workflow`,
    `producer` or `sample`. `as_frame=True` makes a pandas data frame, nested fields as `used.lr`.

    Raises `SpoolError` (an `OSError`) for a path that is not there and for a line that cannot be read, naming it.
    """
    records: dict[str, Record] = {}
    for message in _messages(spool_files([Path(path)], with_open=True)):
        if message.kind is Kind(kind) and workflow_id in (None, message.workflow_id):
            known = records.get(message.record_id)
            records[message.record_id] = message.record if known is None else merge(known, message.record)
    documents = [
        to_document({name: value for name, value in record.items() if name not in _HIDDEN})
        for record in records.values()
    ]
    return _frame(documents) if as_frame else documents


def _messages(files: Iterable[Path]) -> Iterable[Message]:
    for file in files:
        torn = file.name.endswith(".open")
        for line in read_spool(file):
            if line.message is not None:
                yield line.message
            elif not torn:  # the last line of a file that is being written may be half there
                raise SpoolError(f"{file}:{line.number}: {line.error}")


def _frame(documents: list[Record]) -> Any:
    try:
        import pandas as pd
    except ModuleNotFoundError as error:
        raise MissingExtra("read_jsonl(as_frame=True)", "dataframe") from error
    return pd.json_normalize(documents)
