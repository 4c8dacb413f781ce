"""`provd consume`."""

from __future__ import annotations


def consume() -> None:
    """Move captured messages from the broker into the store."""
    raise NotImplementedError
