"""What is under way, for people: per workflow what waits where, the consumers, the two services.

- Only reads, in Redis and in the store, and asks little: 10,000 streams are measured in chunks, and only the workflows
  that are shown have their books read.
- One service away: what the other knows is shown, and what nobody knows is None, never 0.
- Ages are by Redis' clock, or by the store's clock and the consumers' marks; never by this machine's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from provd.common import names, wire
from provd.common.errors import BrokerUnavailable, ProvdError, StoreUnavailable
from provd.common.ranges import Ranges
from provd.common.record import Record
from provd.consumer.backlog import Waiting, look_at, read_lengths
from provd.consumer.broker import Broker, Memory
from provd.store.books import read_books
from provd.store.interface import Store

#: Seconds since a consumer's last mark after which it counts as silent: marks come every three.
SILENT_S = 30.0

#: Workflows without a stream that are looked through for trouble, those with the latest beats first.
_LOOKED_THROUGH = 200


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
    dropped_reasons: dict[str, int] = field(default_factory=dict)

    @property
    def has_trouble(self) -> bool:
        """Whether something of it is not simply on its way."""
        return any((self.spooled, self.held, self.quarantined, self.dropped))


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
    """All of it at one moment. `others` counts workflows that were left out."""

    at: datetime
    broker: ServiceView
    store: ServiceView
    memory: Memory | None
    workflows: tuple[WorkflowView, ...]
    others: int
    #: None when the store could not be asked.
    consumers: tuple[ConsumerView, ...] | None

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
    limit: int = 0,
) -> Overview:
    """Look at everything once. `buckets` counts where Redis has none set. `broker` None: there is none. `workflow_ids` empty: all that have something to tell."""
    in_redis = _look_at_redis(broker, namespace, buckets, workflow_ids)
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
    consumers: tuple[ConsumerView, ...] | None = None
    if not isinstance(store, StoreUnavailable):
        try:
            views += _without_stream(store, {view.workflow_id for view in views}, workflow_ids)
            views, others = _chosen(views, limit)
            views = [_with_books(store, view, redis_up=in_redis.view.up) for view in views]
            consumers = tuple(_consumer(mark) for mark in store.consumers())
            shown = [view for view in views if view.frames is not None or view.has_trouble or workflow_ids]
            return Overview(at, in_redis.view, store_view, in_redis.memory, tuple(shown), others, consumers)
        except StoreUnavailable as error:
            store_view = ServiceView(store.url, error.reason)
    views, others = _chosen(views, limit)
    if broker is not None and in_redis.view.up:
        views = _with_beats(broker, views, in_redis.waiting)
    return Overview(at, in_redis.view, store_view, in_redis.memory, tuple(views), others, None)


# --- Redis -----------------------------------------------------------------------------------------------------


def _look_at_redis(
    broker: Broker | None, namespace: str, buckets: int, workflow_ids: Sequence[str]
) -> _InRedis:
    if broker is None:
        return _InRedis(ServiceView(""))
    try:
        memory = broker.memory()
        lengths = read_lengths(broker, _streams(broker, namespace, buckets, workflow_ids))
        return _InRedis(ServiceView(broker.url), memory, look_at(broker, lengths))
    except BrokerUnavailable as error:
        return _InRedis(ServiceView(broker.url, error.reason))


def _streams(broker: Broker, namespace: str, buckets: int, workflow_ids: Sequence[str]) -> list[str]:
    """The streams there are; unlike a consumer's registry this sets nothing."""
    buckets = int(broker.ask("GET", names.buckets_key(namespace)) or buckets)
    replies = broker.run([("SMEMBERS", names.registry_key(namespace, bucket)) for bucket in range(buckets)])
    found = [key.decode("utf-8", "replace") for reply in replies for key in broker.sound(reply)]
    wanted = set(workflow_ids)
    return sorted(key for key in found if not wanted or names.workflow_of_stream(key) in wanted)


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


def _without_stream(store: Store, known: set[str], workflow_ids: Sequence[str]) -> list[WorkflowView]:
    """Workflows that have no stream (any more), and something to tell: asked for, quarantined, spooled, dropped."""
    if workflow_ids:
        return [WorkflowView(workflow_id) for workflow_id in workflow_ids if workflow_id not in known]
    by_workflow = [{"$group": {"_id": "$workflow_id"}}]
    found = {row["_id"]: None for row in store.aggregate(names.QUARANTINE, by_workflow) if row.get("_id")}
    troubled: dict[str, Any] = {"$or": [{"spooled": {"$ne": []}}, {"dropped": {"$ne": []}}]}
    fields = ("workflow_id", "beat_at")
    for beat in store.find(
        names.BEATS, troubled, fields=fields, sort=[("beat_at", -1)], limit=_LOOKED_THROUGH
    ):
        found[beat["workflow_id"]] = None
    return [WorkflowView(workflow_id) for workflow_id in found if workflow_id not in known]


def _with_books(store: Store, view: WorkflowView, *, redis_up: bool) -> WorkflowView:
    books = read_books(store, view.workflow_id, count_tasks=False)
    held = books.total("held")
    campaign = view.campaign_id or _campaign_in(store, view.workflow_id)
    missing = books.total("missing")
    return replace(
        view,
        campaign_id=campaign,
        produced=books.total("produced"),
        stored=books.total("stored"),
        spooled=books.total("spooled") - held,
        held=held,
        quarantined=books.total("quarantined") + books.unattributed,
        dropped=books.total("dropped"),
        # What waits in Redis is on its way, not missing; only without a stream is the rest gone.
        missing=missing if redis_up and view.frames is None else None,
        dropped_reasons=books.dropped_reasons,
    )


def _campaign_in(store: Store, workflow_id: str) -> str | None:
    where = {"workflow_id": workflow_id}
    for record in store.find(names.WORKFLOWS, where, fields=("campaign_id",), limit=1):
        return record.get("campaign_id")
    return None


def _chosen(views: list[WorkflowView], limit: int) -> tuple[list[WorkflowView], int]:
    """Those with the oldest frame, then those with the most frames, then the rest; and how many were left out."""
    ordered = sorted(views, key=lambda view: (-(view.oldest_s or 0.0), -(view.frames or 0), view.workflow_id))
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
