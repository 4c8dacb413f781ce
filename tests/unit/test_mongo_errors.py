"""What MongoDB says of itself is never taken for a fault of the data."""

from __future__ import annotations

import pytest
from pymongo import errors

from provd.common.errors import StoreError, StoreUnavailable
from provd.store.mongo_errors import translated

URL = "mongodb://127.0.0.1/provd"


def test_a_server_that_takes_no_retryable_writes_is_away_and_refuses_no_message() -> None:
    """G4: seen as a standalone server came back; the message in hand is healthy."""
    said = "This MongoDB deployment does not support retryable writes."

    with pytest.raises(StoreUnavailable), translated(URL):
        raise errors.OperationFailure(said, 20)


def test_a_refusal_of_a_document_is_no_outage() -> None:
    with pytest.raises(StoreError), translated(URL):
        raise errors.OperationFailure("document is larger than the maximum size", 10334)
