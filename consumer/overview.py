"""What is under way, for people: per workflow what waits where, the consumers, the two services.

- Only reads, in Redis and in the store, and asks little: 10,000 streams are measured in chunks, and only the workflows
  that are shown, and the latest in the store, have their books read.
- Every workflow that is not known to be over and whole is shown (`provd.store.unfinished`), the others are counted.
- One service away: what the other knows is shown, and what nobody knows is None, never 0.
- Ages are by Redis' clock, or by the store's clock and the consumers' marks; never by this machine's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from provd.common import names, wire
from provd.common.errors import BrokerUnavailable, ProvdError, StoreUnavailable
from provd.common.ranges import Ranges
from provd.common.record import Record
from provd.consumer.backlog import Waiting, look_at, read_lengths
from provd.consumer.broker import Broker, Memory
from provd.store.books import WorkflowBooks, read_several_books
from provd.store.interface import Store
from provd.store.unfinished import Unfinished, portions, read_unfinished

#: Seconds since a consumer's last mark after which it counts as silent: marks come every three.
SILENT_S = 30.0

#: Runs that are looked through for what is not over and whole, the latest.
_LOOKED_THROUGH = 500


@dataclass(frozen=True, slots=True)
class ServiceView:
    """A service: `error` says why it is away."""

    url: str
    error: str | None = None

    @property
    def up(self) -> bool:
        """Whether it answers."""
        return self.error is None


@dataclass(frozen=True, slots=True)
class WorkflowView:
    """One workflow. Counts are messages, but for `frames` and `pending`; None is what nobody could say."""

    workflow_id: str
    campaign_id: str | None = None
    #: How it reads, where somebody has asked the store.
    status: str | None = None
    frames: int | None = None
    pending: int | None = None
    oldest_s: float | None = None
    produced: int | None = None
    stored: int | None = None
    #: In the producers' spools, and in the consumers'.
    spooled: int | None = None
    held: int | None = None
    quarantined: int | None = None
    dropped: int | None = None
    missing: int | None = None
    #: Producers that have not closed, and ranks that have not appeared.
    unclosed: int | None = None
    missing_ranks: int | None = None
    dropped_reasons: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ConsumerView:
    """One consumer; `seen_s` is how long ago it was seen last."""

    name: str
    hostname: str
    pid: int
    version: str
    state: str
    seen_s: float
    figures: dict[str, Any]
    workflow_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Overview:
    """All of it at one moment. `others` counts workflows that were left out.

    `whole` counts runs that are over and wholly stored, None where that was not asked or could not be answered; `unseen`
    older runs that were not looked at.
    """

    at: datetime
    broker: ServiceView
    store: ServiceView
    memory: Memory | None
    workflows: tuple[WorkflowView, ...]
    others: int
    #: None when the store could not be asked.
    consumers: tuple[ConsumerView, ...] | None
    whole: int | None = None
    unseen: int = 0

    @property
    def reachable(self) -> bool:
        """Whether both services answer."""
        return self.broker.up and self.store.up


@dataclass(slots=True)
class _InRedis:
    view: ServiceView
    memory: Memory | None = None
    #: By stream.
    waiting: dict[str, Waiting] = field(default_factory=dict)


def survey(
    broker: Broker | None,
    store: Store | StoreUnavailable,
    *,
    at: datetime,
    namespace: str,
    buckets: int,
    workflow_ids: Sequence[str] = (),
    only: Collection[str] | None = None,
    limit: int = 0,
) -> Overview:
    """Look at everything once. `buckets` counts where Redis has none set. `broker` None: there is none.

    `workflow_ids` empty: all that are not over and whole; of streams, those of `only` these workflows.
    """
    in_redis = _look_at_redis(broker, namespace, buckets, workflow_ids or only)
    views = [
        WorkflowView(
            names.workflow_of_stream(stream),
            _campaign_of(stream),
            frames=waiting.frames,
            pending=waiting.pending,
            oldest_s=waiting.oldest_s,
        )
        for stream, waiting in in_redis.waiting.items()
    ]
    store_view = (
        ServiceView(store.url, store.reason)
        if isinstance(store, StoreUnavailable)
        else ServiceView(store.url)
    )
    if not isinstance(store, StoreUnavailable):
        try:
            found = _not_whole(store, workflow_ids, limit)
            known = {view.workflow_id for view in views}
            others_ids = workflow_ids or [books.workflow_id for books in found.books]
            views += [WorkflowView(workflow_id) for workflow_id in others_ids if workflow_id not in known]
            chosen, others = _chosen(views, limit)
            shown = _with_books(store, chosen, found.books, redis_up=in_redis.view.up)
            consumers = tuple(_consumer(mark) for mark in store.consumers())
            whole = None if workflow_ids else found.whole
            return Overview(
                at, in_redis.view, store_view, in_redis.memory, shown, others, consumers, whole, found.unseen
            )
        except StoreUnavailable as error:
            store_view = ServiceView(store.url, error.reason)
    views, others = _chosen(views, limit)
    if broker is not None and in_redis.view.up:
        views = _with_beats(broker, views, in_redis.waiting)
    return Overview(at, in_redis.view, store_view, in_redis.memory, tuple(views), others, None)


# --- Redis -----------------------------------------------------------------------------------------------------


def _look_at_redis(
    broker: Broker | None, namespace: str, buckets: int, wanted: Collection[str] | None
) -> _InRedis:
    if broker is None:
        return _InRedis(ServiceView(""))
    try:
        memory = broker.memory()
        lengths = read_lengths(broker, _streams(broker, namespace, buckets, wanted))
        return _InRedis(ServiceView(broker.url), memory, look_at(broker, lengths))
    except BrokerUnavailable as error:
        return _InRedis(ServiceView(broker.url, error.reason))


def _streams(broker: Broker, namespace: str, buckets: int, wanted: Collection[str] | None) -> list[str]:
    """The streams there are, of these workflows if they are given; unlike a consumer's registry this sets nothing."""
    wanted = None if wanted is None else set(wanted)
    buckets = int(broker.ask("GET", names.buckets_key(namespace)) or buckets)
    replies = broker.run([("SMEMBERS", names.registry_key(namespace, bucket)) for bucket in range(buckets)])
    found = [key.decode("utf-8", "replace") for reply in replies for key in broker.sound(reply)]
    return sorted(key for key in found if wanted is None or names.workflow_of_stream(key) in wanted)


def _campaign_of(stream: str) -> str | None:
    campaign = stream.partition(":stream:")[2].rpartition(":")[0]
    return None if campaign in ("", names.NO_CAMPAIGN) else campaign


def _with_beats(broker: Broker, views: Iterable[WorkflowView], streams: Iterable[str]) -> list[WorkflowView]:
    """What producers and consumers have told Redis, where the store cannot be asked."""
    key_of = {names.workflow_of_stream(stream): names.WorkflowKeys.of_stream(stream) for stream in streams}
    told = []
    for view in views:
        keys = key_of.get(view.workflow_id)
        try:
            found = broker.run([("HVALS", keys.beats), ("HVALS", keys.spooled)]) if keys else []
            told.append(_told(view, *found) if found else view)
        except ProvdError:
            told.append(view)
    return told


def _told(view: WorkflowView, beats: Any, held: Any) -> WorkflowView:
    spooled = dropped = sent = 0
    for packed in beats if isinstance(beats, list) else ():
        try:
            fields = wire.unpack(packed)
            sent += int(fields.get("sent", 0))
            spooled += len(_ranges(fields.get("spooled", ())))
            dropped += len(_ranges(fields.get("dropped", ())))
        except wire.UNPACK_ERRORS:
            continue
    texts = held if isinstance(held, list) else ()
    in_consumers = sum(len(Ranges.parse(text.decode("ascii", "replace"))) for text in texts)
    return replace(view, produced=sent or None, spooled=spooled, dropped=dropped, held=in_consumers)


def _ranges(spans: Iterable[Any]) -> Ranges:
    return Ranges.of((int(first), int(last)) for first, last in spans)


# --- the store -------------------------------------------------------------------------------------------------


def _not_whole(store: Store, workflow_ids: Sequence[str], limit: int) -> Unfinished:
    """What is to be shown though it has no stream (any more); nobody is looked for who is asked for by name."""
    if workflow_ids:
        return Unfinished((), 0, 0)
    return read_unfinished(store, among=_LOOKED_THROUGH if limit else 0)


def _with_books(
    store: Store, views: Sequence[WorkflowView], read: Iterable[WorkflowBooks], *, redis_up: bool
) -> tuple[WorkflowView, ...]:
    """The views with what the books say; those that have been read are not read again."""
    books = {one.workflow_id: one for one in read}
    for some in portions([view.workflow_id for view in views if view.workflow_id not in books]):
        books |= read_several_books(store, some)
    campaigns: dict[str, str | None] = {}
    for some in portions([view.workflow_id for view in views if view.campaign_id is None]):
        where = {"workflow_id": {"$in": list(some)}}
        for record in store.find(names.WORKFLOWS, where, fields=("workflow_id", "campaign_id")):
            campaigns[record["workflow_id"]] = record.get("campaign_id")
    return tuple(
        _told_by_books(
            replace(view, campaign_id=view.campaign_id or campaigns.get(view.workflow_id)),
            books[view.workflow_id],
            redis_up=redis_up,
        )
        for view in views
    )


def _told_by_books(view: WorkflowView, books: WorkflowBooks, *, redis_up: bool) -> WorkflowView:
    held = books.total("held")
    missing = books.total("missing")
    # What waits in Redis is on its way, not missing; only without a stream is the rest gone.
    certain = view.frames is None and (redis_up or not missing)
    return replace(
        view,
        produced=books.total("produced"),
        stored=books.total("stored"),
        spooled=books.total("spooled") - held,
        held=held,
        quarantined=books.total("quarantined") + books.unattributed,
        dropped=books.total("dropped"),
        missing=missing if certain else None,
        unclosed=len(books.unclosed),
        missing_ranks=len(books.missing_ranks),
        dropped_reasons=books.dropped_reasons,
    )


def _chosen(views: list[WorkflowView], limit: int) -> tuple[list[WorkflowView], int]:
    """Those with the oldest frame, then those with the most frames, then the rest as they come; and how many were left
    out.
    """
    ordered = sorted(views, key=lambda view: (-(view.oldest_s or 0.0), -(view.frames or 0)))
    return (ordered[:limit], max(0, len(ordered) - limit)) if limit else (ordered, 0)


def _consumer(mark: Record) -> ConsumerView:
    seen_s = max(0.0, (mark["now"] - mark["store_at"]).total_seconds())
    state = str(mark.get("state", ""))
    return ConsumerView(
        name=mark["name"],
        hostname=mark.get("hostname", ""),
        pid=mark.get("pid", 0),
        version=mark.get("version", ""),
        state="silent" if state != "stopped" and seen_s > SILENT_S else state,
        seen_s=seen_s,
        figures=dict(mark.get("figures", {})),
        workflow_ids=tuple(mark.get("workflow_ids", ())),
    )
