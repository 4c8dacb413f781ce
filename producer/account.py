"""What a producer says of itself in a workflow, beside how many messages it has made: who it is, what it counts, how it
ended.

- It is one record, stated as a whole each time: when it is first heard, when it says goodbye, and in between when there
  is something to add.
- Totals are stated at most once every `restate_s` seconds; a further campaign before the first task that names it.
- A document keeps the gravest status, so each goodbye has the gravest one, and what is counted later is not lost.
"""

from __future__ import annotations

from typing import NamedTuple

from provd.common import clock
from provd.common.record import Record, Status
from provd.producer.identity import Identity
from provd.producer.outcome import Outcome
from provd.producer.totals import Counts, Totals

#: Campaigns that the tasks of a process may name beside their workflow's; with more it says that it may be any.
CAMPAIGNS_MAX = 1000
ANY_CAMPAIGN = ("*",)


class Additions(NamedTuple):
    """What is added in the course of time."""

    counts: Counts
    campaigns: tuple[str, ...]


class Account:
    """The record of one producer in one workflow."""

    __slots__ = (
        "_gravest", "_identity", "_restate_s", "_started_at", "_told", "campaigns", "restate_at", "totals",
    )  # fmt: skip

    def __init__(self, identity: Identity, restate_s: float) -> None:
        self._identity = identity
        self._restate_s = restate_s
        self._started_at = clock.now_ms()
        self._gravest: Outcome | None = None
        #: What the program counts.
        self.totals = Totals()
        #: Further campaigns that its tasks have named.
        self.campaigns: tuple[str, ...] = ()
        self._told: tuple[str, ...] = self.campaigns
        #: When totals may be stated again.
        self.restate_at = 0.0

    def name_campaign(self, campaign_id: str) -> None:
        """A task belongs to this campaign, and not to the workflow's."""
        while campaign_id not in self.campaigns and self.campaigns is not ANY_CAMPAIGN:
            before = self.campaigns
            after = (*before, campaign_id) if len(before) < CAMPAIGNS_MAX else ANY_CAMPAIGN
            # No call from here on: neither a signal handler nor a thread comes in between.
            if self.campaigns is before:
                self.campaigns = after

    @property
    def has_news(self) -> bool:
        """Whether there is something that has not been said."""
        return self.totals.has_news or self.campaigns is not self._told

    @property
    def is_due(self) -> bool:
        """Whether it is to be said now."""
        totals = self.totals
        return self.campaigns is not self._told or (
            totals.counts is not totals.told and clock.monotonic() >= self.restate_at
        )

    def grave(self, outcome: Outcome) -> Outcome:
        """The gravest of the outcomes there have been, this one among them."""
        if self._gravest is None or outcome.status.rank >= self._gravest.status.rank:
            self._gravest = outcome
        return self._gravest

    @property
    def outcome(self) -> Outcome | None:
        """How it has ended so far, if it has."""
        return self._gravest

    @property
    def additions(self) -> Additions:
        """What there is to add now."""
        return Additions(self.totals.counts, self.campaigns)

    def record(self, additions: Additions, outcome: Outcome | None) -> Record:
        """The record; of one that has not said goodbye without an outcome."""
        fields = {"status": Status.RUNNING.value} if outcome is None else outcome.fields()
        record: Record = {**fields, "started_at": self._started_at}
        if self._identity.world_size is not None:
            record["world_size"] = self._identity.world_size
        if self._identity.scheduler:
            record["scheduler"] = self._identity.scheduler
        if additions.counts:
            record["counts"] = additions.counts
        if additions.campaigns:
            record["campaigns"] = additions.campaigns
        return record

    def note_told(self, additions: Additions) -> None:
        """These have been said."""
        self.totals.told, self._told = additions
        self.restate_at = clock.monotonic() + self._restate_s
