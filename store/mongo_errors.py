"""What MongoDB's errors mean here: translated in this one place.

An error that says nothing about the data (no connection, no primary, no majority in time, no room on its disk, no
right to enter) is `StoreUnavailable`: the same write may succeed later. The rest is the store's refusal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from bson.errors import BSONError
from pymongo import errors

from provd.common.advice import advised
from provd.common.errors import ProvdError, QueryTimeout, StoreError, StoreUnavailable, UnsupportedQuery

DUPLICATE_KEY = 11000

#: Server codes that speak of the server's state, not of the data, as its `error_codes.yml` names them.
# fmt: off
_TRANSIENT_CODES = frozenset({
    6, 7, 89, 202, 9001,                   # host unreachable or unknown, network time-outs, a broken socket
    13, 18, 8000,                          # no right to enter: an administrator mends that, not the data
    24, 46, 50, 112, 251, 262, 290,        # locks, write conflicts and time limits
    63, 64, 79, 100, 133, 134, 150, 13388, # sharding and write concern: stale routing, no majority in time
    91, 189, 10058, 10107, 11600, 11601, 11602, 13435, 13436,  # stepping down, shutting down, interrupted
    14031,                                 # out of disk
    8,                                     # what its storage engine has no number for: a write met a full or failing disk
    20,                                    # a server that (just restarted, or ever) takes no retryable writes
})
# fmt: on

_UNAVAILABLE = (
    errors.ConnectionFailure,
    errors.WTimeoutError,
    errors.ExecutionTimeout,
    errors.InvalidOperation,
)


def is_transient(error: Mapping[str, Any]) -> bool:
    """Whether a write error of one document says nothing about the document."""
    return error.get("code") in _TRANSIENT_CODES


@contextmanager
def translated(url: str, *, reading: bool = False) -> Iterator[None]:
    """Turn pymongo's errors into ours; what a read is refused is the query's fault. `url` is masked."""
    try:
        yield
    except _UNAVAILABLE as error:
        raise StoreUnavailable(url, advised(one_line(error), url)) from error
    except errors.BulkWriteError as error:
        raise _of_bulk(url, error) from error
    except errors.OperationFailure as error:
        raise _of_failure(url, error, reading=reading) from error
    except (errors.PyMongoError, BSONError, OverflowError, RecursionError) as error:
        kind = UnsupportedQuery if reading else StoreError
        raise kind(one_line(error)) from error
    except TypeError as error:
        if not reading:
            raise
        raise UnsupportedQuery(one_line(error)) from error


@contextmanager
def timed(timeout_s: float | None) -> Iterator[None]:
    """Tell a question's own time limit from a server that is slow; goes inside `translated`."""
    try:
        yield
    except errors.ExecutionTimeout as error:
        if timeout_s is None:
            raise
        raise QueryTimeout(timeout_s) from error


def _of_bulk(url: str, error: errors.BulkWriteError) -> ProvdError:
    details = error.details or {}
    failures = [*details.get("writeConcernErrors", ()), *details.get("writeErrors", ())]
    reason = str(failures[0].get("errmsg", error)) if failures else one_line(error)
    if details.get("writeConcernErrors") or any(is_transient(failure) for failure in failures):
        return StoreUnavailable(url, advised(reason, url))
    return StoreError(reason)


def _of_failure(url: str, error: errors.OperationFailure, *, reading: bool) -> ProvdError:
    if error.code in _TRANSIENT_CODES or isinstance(error, errors.WriteConcernError):
        return StoreUnavailable(url, advised(one_line(error), url))
    return UnsupportedQuery(one_line(error)) if reading else StoreError(one_line(error))


def one_line(error: Exception) -> str:
    """The error's own words without the server's full answer or the topology's description."""
    text = str(error).partition(", full error:")[0].partition(", Timeout:")[0]
    return " ".join(text.split())[:500] or type(error).__name__
