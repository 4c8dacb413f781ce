"""Exit statuses: what each means is the same for every command."""

from __future__ import annotations

from provd.common.errors import (
    InvalidId,
    NotFound,
    ProvdError,
    ServiceUnavailable,
    SettingsError,
    UnsafeStore,
    UnsupportedQuery,
    UsageError,
)

#: What was asked has been done.
DONE = 0
#: It failed, or the run asked about is incomplete, or there is no such run.
FAILED = 1
#: A wrong option, argument, setting or id; asking again will not help.
USAGE = 2
#: Redis or the store could not be reached; asking later may help.
UNREACHABLE = 3
#: Ctrl-C, as shells report it.
INTERRUPTED = 130
#: SIGTERM, likewise: a scheduler's time limit, say.
TERMINATED = 143

#: The first class that fits decides.
_STATUS = (
    (ServiceUnavailable, UNREACHABLE),
    (NotFound, FAILED),
    (UsageError, USAGE),
    (SettingsError, USAGE),
    (InvalidId, USAGE),
    (UnsafeStore, USAGE),
    (UnsupportedQuery, USAGE),
)


def exit_status(error: ProvdError) -> int:
    """The exit status that tells of an error."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), FAILED)
