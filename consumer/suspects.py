"""Frames that may have ended the consumers that had them in hand.

- A frame that has been delivered often is processed alone, with a suspicion against it noted in Redis for just that
  time. Whoever survives takes the suspicion back, whatever the outcome: an outage never counts.
- So what is counted is consumers that ended with this frame alone in hand, and refusals of a store that answers. At
  `CONDEMNED_AFTER` of them the frame goes to quarantine as it is, without another look into it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from provd.common import names
from provd.common.errors import BrokerUnavailable, ProvdError, ServiceUnavailable
from provd.consumer import scripts
from provd.consumer.broker import Broker
from provd.consumer.streams import Entry

#: Deliveries after which a frame is processed alone.
ALONE_AFTER = 5

#: Suspicions at which a frame is not touched any more.
CONDEMNED_AFTER = 3


def is_suspect(entry: Entry) -> bool:
    """Whether a frame has been delivered so often that it is to be processed alone."""
    return entry.deliveries >= ALONE_AFTER


class Suspects:
    """Notes suspicions, and takes them back."""

    def __init__(self, broker: Broker, *, consumer: str) -> None:
        self._broker = broker
        self._consumer = consumer
        #: What Redis has yet to hear: commands that take suspicions back.
        self._owed: list[tuple[object, ...]] = []

    @contextmanager
    def under_watch(self, entry: Entry) -> Iterator[str | None]:
        """The time in which a frame is processed alone, to be entered just after its way out has proved open.

        Gives the reason to quarantine the frame unread, else None. Raises `BrokerUnavailable`, and `NotOurs` when the
        frame has been taken over or acknowledged by another.
        """
        self.settle()
        keys = names.WorkflowKeys.of_stream(entry.stream)
        before = self._broker.ask(
            "EVAL",
            scripts.SUSPECT,
            2,
            keys.stream,
            keys.suspects,
            names.GROUP,
            self._consumer,
            entry.entry_id,
        )
        if before < 0:
            raise NotOurs(entry.entry_id)
        # What is owed to Redis afterwards: of a service that went away, and of who is told to stop, the one suspicion.
        owed: tuple[object, ...] | None = ("EVAL", scripts.CLEAR, 1, keys.suspects, entry.entry_id)
        try:
            yield _sentence(before)
            owed = ("HDEL", keys.suspects, entry.entry_id)
        except ServiceUnavailable:
            raise
        except Exception:
            owed = None  # the store's refusal, or a fault of ours that this frame has found: it counts
            raise
        finally:
            if owed is not None:
                self._owe(owed)

    def settle(self) -> None:
        """Tell Redis what it has not heard yet. Raises `BrokerUnavailable`."""
        if self._owed:
            self._broker.run(self._owed)
            self._owed = []

    def _owe(self, command: tuple[object, ...]) -> None:
        self._owed.append(command)
        try:
            self.settle()
        except BrokerUnavailable:
            pass  # Redis is away; the next look comes before the next suspicion


class NotOurs(ProvdError):
    """A frame is in other hands by now, or gone."""


def _sentence(suspicions: int) -> str | None:
    if suspicions < CONDEMNED_AFTER:
        return None
    return f"{suspicions} times a consumer ended, or the store refused, with this frame alone in hand"
