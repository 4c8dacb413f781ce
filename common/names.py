"""Every key in Redis and every collection in the store.

`{b}` is the workflow's bucket: its hash modulo the bucket count kept in Redis. The braces put a bucket's keys on
one slot of a Redis Cluster, so that several streams are read in one call and retired by one script.

Redis key                                     what it holds                       who writes        who deletes
<ns>:buckets                                  the bucket count, set once          first comer       nobody
<ns>:{b}:streams                              set: stream keys of the bucket      producer          retirement
<ns>:{b}:stream:<campaign>:<workflow>         stream: one entry per frame         producer          retirement
<ns>:{b}:beats:<workflow>                     hash: producer id -> last beat      producer          retirement
<ns>:{b}:spooled:<workflow>                   hash: producer id -> ranges that    consumer          retirement
                                              a consumer holds in its own spool
<ns>:{b}:stored:<workflow>                    hash: producer id -> ranges that    consumer          retirement
                                              the store holds (receipts); `:store` -> which store
<ns>:{b}:suspects:<workflow>                  hash: entry id -> consumers that    consumer          retirement
                                              ended with this frame alone in hand

The namespace `<ns>` keeps two deployments on one Redis apart. A workflow without a campaign has `-` in its place.

Store collection   one document per
tasks              task
links              value that can be followed, or dependency, that a message says a task used or generated
workflows          workflow
producers          producer and workflow
samples            node sample
ledger             range of sequence numbers stored, of one producer in one workflow
beats              producer and workflow: its last sign of life
consumers          consumer: what it does, and two clocks
quarantine         message or frame that could not be stored
tombstones         run that has been deleted
migrations         change of the store's schema that has been made
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

#: The one consumer group of every stream.
GROUP = "provd"

#: Fields of a stream entry: the frame's header and its body.
HEADER_FIELD = b"h"
BODY_FIELD = b"b"

NO_CAMPAIGN = "-"

TASKS = "tasks"
LINKS = "links"
WORKFLOWS = "workflows"
PRODUCERS = "producers"
SAMPLES = "samples"
LEDGER = "ledger"
BEATS = "beats"
CONSUMERS = "consumers"
QUARANTINE = "quarantine"
TOMBSTONES = "tombstones"
MIGRATIONS = "migrations"

#: Collections that people query; the others are the store's own books.
COLLECTIONS = (TASKS, LINKS, WORKFLOWS, PRODUCERS, SAMPLES, LEDGER, BEATS, CONSUMERS, QUARANTINE, TOMBSTONES)


def buckets_key(namespace: str) -> str:
    """The key that holds the bucket count."""
    return f"{namespace}:buckets"


def bucket_of(workflow_id: str, buckets: int) -> int:
    """The bucket of a workflow."""
    return zlib.crc32(workflow_id.encode()) % buckets


def registry_key(namespace: str, bucket: int) -> str:
    """The key of a bucket's set of streams."""
    return f"{namespace}:{{{bucket}}}:streams"


class WorkflowKeys(NamedTuple):
    """The keys of one workflow."""

    registry: str
    stream: str
    beats: str
    spooled: str
    stored: str
    suspects: str

    @classmethod
    def of(cls, namespace: str, buckets: int, workflow_id: str, campaign_id: str | None) -> WorkflowKeys:
        """Compute the keys; both ids have been checked by `ids.check_id`."""
        bucket = bucket_of(workflow_id, buckets)
        head = f"{namespace}:{{{bucket}}}"
        return cls(
            registry=registry_key(namespace, bucket),
            stream=f"{head}:stream:{campaign_id or NO_CAMPAIGN}:{workflow_id}",
            beats=f"{head}:beats:{workflow_id}",
            spooled=f"{head}:spooled:{workflow_id}",
            stored=f"{head}:stored:{workflow_id}",
            suspects=f"{head}:suspects:{workflow_id}",
        )

    @classmethod
    def of_stream(cls, stream: str) -> WorkflowKeys:
        """Compute the keys from a stream's key alone, as the registry gives it."""
        head, _, tail = stream.partition(":stream:")
        workflow_id = tail.rpartition(":")[2]
        return cls(
            registry=f"{head}:streams",
            stream=stream,
            beats=f"{head}:beats:{workflow_id}",
            spooled=f"{head}:spooled:{workflow_id}",
            stored=f"{head}:stored:{workflow_id}",
            suspects=f"{head}:suspects:{workflow_id}",
        )


def workflow_of_stream(stream: str) -> str:
    """The workflow id at the end of a stream's key."""
    return stream.rpartition(":")[2]
