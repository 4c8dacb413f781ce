"""Every error that provd raises on purpose.

ProvdError
├── SettingsError (ValueError)      a setting, its file, key or value
├── InvalidId (ValueError)          a workflow or campaign id outside the allowed alphabet
├── MissingExtra (ImportError)      an optional dependency that is not installed
├── ServiceUnavailable (ConnectionError)
│   ├── BrokerUnavailable           Redis did not answer
│   │   └── BrokerFull              it did, and has no memory left
│   └── StoreUnavailable            MongoDB, or the embedded store's file, did not answer
├── FrameError (ValueError)         bytes that are not a frame of ours
│   └── NewerSchema                 a frame written by a later version
├── SpoolError (OSError)            the spool cannot be written
├── OutputError (OSError)           a file that was asked for cannot be written
├── BadExport (ValueError)          a file to be imported that is not a whole export
├── BadBackup (ValueError)          a folder to be restored that is not a whole backup
├── StoreError                      the store answers, and refuses
│   ├── UnsafeStore                 a place where the embedded store would not be safe
│   ├── QueryTimeout                a question took longer than it may
│   └── UnsupportedQuery            an operator the store does not answer
└── UsageError (ValueError)         a command asked for what does not exist
    ├── NotFound
    │   └── Deleted                 a run that has been deleted, and left a tombstone
    └── Ambiguous

None of them ever reaches the traced program (G1): the producer translates them into one warning.
"""

from __future__ import annotations


class ProvdError(Exception):
    """The root: catch this to catch everything of ours."""


class SettingsError(ProvdError, ValueError):
    """A setting is wrong; the message names the source, the key, the value and the fix."""


class InvalidId(ProvdError, ValueError):
    """An id given by a user does not fit 1-128 ASCII letters, digits and `._-`."""


class MissingExtra(ProvdError, ImportError):
    """An optional dependency is not installed; the message is the line that installs it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f'{what} needs the extra "{extra}": pip install "provd[{extra}]"')
        self.extra = extra


class ServiceUnavailable(ProvdError, ConnectionError):
    """A service did not answer. Whether it did what it was asked is not known: ask again, safely."""

    def __init__(self, url: str, reason: str) -> None:
        """`url` is masked by the caller; `reason` is one line of the client's own words."""
        super().__init__(f"{url}: {reason}")
        self.url = url
        self.reason = reason


class BrokerUnavailable(ServiceUnavailable):
    """Redis did not answer, or refused to write (out of memory, read-only, wrong password)."""


class BrokerFull(BrokerUnavailable):
    """Redis has no memory left: a consumer makes room, or more of it helps."""


class StoreUnavailable(ServiceUnavailable):
    """The store did not answer; a write that was under way may or may not have happened."""


class FrameError(ProvdError, ValueError):
    """The bytes are not a frame: half of one, garbled, or foreign."""


class NewerSchema(FrameError):
    """The frame is sound and of a later schema: leave it pending and upgrade the consumer."""

    def __init__(self, version: int) -> None:
        super().__init__(f"frame of schema {version}; this provd reads up to schema 1: upgrade the consumer")
        self.version = version


class SpoolError(ProvdError, OSError):
    """The spool cannot take messages: its folder, its disk or its ceiling refuses them.

    `kind` is what dropped messages are counted under.
    """

    CEILING = "spool ceiling"
    FREE_FLOOR = "free floor"
    DISK = "disk error"

    def __init__(self, text: str, *, kind: str = DISK) -> None:
        super().__init__(text)
        self.kind = kind


class OutputError(ProvdError, OSError):
    """A file that was asked for cannot be written; what was there before is as it was."""


class BadExport(ProvdError, ValueError):
    """A file to be imported is not a whole export; the message names the line."""


class BadBackup(ProvdError, ValueError):
    """A folder to be restored is not a whole backup; the message names the file."""


class StoreError(ProvdError):
    """The store answers and refuses the operation."""


class UnsafeStore(StoreError):
    """The embedded store will not run on a network file system: its locks do not hold there."""


class QueryTimeout(StoreError):
    """The question takes longer than its time limit; nothing is wrong with the store."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the question took longer than {seconds:g} s: narrow it, or give it more time")
        self.seconds = seconds


class UnsupportedQuery(StoreError, ValueError):
    """The query uses an operator outside the subset this store answers; the message names it."""


class UsageError(ProvdError, ValueError):
    """A command was asked for something that does not exist, or for too many things at once."""


class NotFound(UsageError):
    """Nothing has this id, prefix or name."""


class Deleted(NotFound):
    """The run has been deleted, or its deletion has begun (`finished` is false); the message says when and by whom."""

    def __init__(self, text: str, *, workflow_id: str, finished: bool) -> None:
        super().__init__(text)
        self.workflow_id = workflow_id
        self.finished = finished


class Ambiguous(UsageError):
    """More than one thing has this prefix or name."""
