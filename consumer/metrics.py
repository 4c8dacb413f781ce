"""Prometheus metrics, on the loopback interface only.

- The numbers are read from the consumer's own tally when someone asks: a scrape asks no service, and costs the
  consumer nothing.
- What a metric is called, and what it means, stands in `METRICS`; `docs/operations.md` is compared with it by a test.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

from provd.common.errors import MissingExtra, SettingsError
from provd.consumer.progress import LATENCY_S, REDIS, STORE, Progress

_HOST = "127.0.0.1"

#: Every metric, as Prometheus knows it, and what it says.
METRICS = {
    "provd_consumer_received_total": "Messages read from Redis",
    "provd_consumer_stored_total": "Messages that made or changed a document",
    "provd_consumer_duplicates_total": "Messages that changed nothing, having come before",
    "provd_consumer_quarantined_total": "Messages put into quarantine",
    "provd_consumer_refused_total": "Messages of deleted runs, which are not kept",
    "provd_consumer_spooled_total": "Messages put into the consumer's own spool while the store was away",
    "provd_consumer_brought_back_total": "Messages taken back out of the consumer's own spool",
    "provd_consumer_spool_bytes": "Bytes in the consumer's own spool that are not in the store yet",
    "provd_consumer_spool_files": "Files in the consumer's own spool that are not in the store yet",
    "provd_consumer_batch_seconds": "Latency of a batch: the time of one write to the store",
    "provd_consumer_up": "1 while the service answers, 0 while it is waited for",
    "provd_consumer_reconnects_total": "Times that the service came back after it had not answered",
    "provd_consumer_build_info": "1, with the versions that run as labels",
    "provd_streams": "Workflows that have a stream in Redis",
    "provd_lag_frames": "Frames in Redis that are not stored and acknowledged",
    "provd_pending_frames": "Those of them that a consumer has in hand",
    "provd_oldest_unstored_seconds": "Age of the oldest of them, by Redis' clock; 0 when there is none",
    "provd_redis_memory_used_bytes": "Memory that Redis uses",
    "provd_redis_memory_max_bytes": "Redis' maxmemory; 0 when it has none",
    "provd_producers_spooled_messages": "Messages that producers say are in their spools",
    "provd_producers_dropped_messages": "Messages that producers say they dropped, by reason",
}

_COUNTERS = ("received", "stored", "duplicates", "quarantined", "refused", "spooled", "brought_back")


class Metrics:
    """Serves a consumer's progress over HTTP for as long as it is open."""

    def __init__(self, port: int, snapshot: Callable[[], Progress]) -> None:
        """Raises `MissingExtra`, and `SettingsError` when the port is taken."""
        try:
            from prometheus_client import CollectorRegistry, start_http_server
        except ImportError as error:
            raise MissingExtra("metrics", "consumer") from error
        registry = CollectorRegistry()
        registry.register(_Collector(snapshot))
        try:
            self._server, self._thread = start_http_server(port, addr=_HOST, registry=registry)
        except OSError as error:
            raise SettingsError(f"metrics_port {port}: {error.strerror}; choose a free port") from error

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Collector:
    def __init__(self, snapshot: Callable[[], Progress]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Any]:
        progress = self._snapshot()
        for name in _COUNTERS:
            yield _counter(f"provd_consumer_{name}_total", getattr(progress, name))
        yield from _services(progress)
        yield _latency(progress)
        yield from _gauges(progress)
        yield _by_label("provd_producers_dropped_messages", "reason", progress.producers.dropped)
        yield _build()


def _counter(name: str, value: float) -> Any:
    from prometheus_client.core import CounterMetricFamily

    return CounterMetricFamily(name, METRICS[name], value=value)


def _by_label(name: str, label: str, values: Any) -> Any:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
    family = kind(name, METRICS[name], labels=[label])
    for key, value in sorted(values.items()):
        family.add_metric([key], value)
    return family


def _services(progress: Progress) -> Iterator[Any]:
    services = {REDIS: progress.redis, STORE: progress.store}
    up = {name: int(service.up) for name, service in services.items()}
    reconnects = {name: service.reconnects for name, service in services.items()}
    yield _by_label("provd_consumer_up", "service", up)
    yield _by_label("provd_consumer_reconnects_total", "service", reconnects)


def _latency(progress: Progress) -> Any:
    from prometheus_client.core import HistogramMetricFamily

    so_far, buckets = 0, []
    for end, count in zip((*LATENCY_S, float("inf")), progress.latencies, strict=True):
        so_far += count
        buckets.append(("+Inf" if end == float("inf") else str(end), so_far))
    name = "provd_consumer_batch_seconds"
    return HistogramMetricFamily(name, METRICS[name], buckets=buckets, sum_value=progress.write_s)


def _gauges(progress: Progress) -> Iterator[Any]:
    from prometheus_client.core import GaugeMetricFamily

    in_redis = progress.in_redis
    for name, value in (
        ("provd_consumer_spool_bytes", progress.backlog_bytes),
        ("provd_consumer_spool_files", progress.backlog_files),
        ("provd_streams", in_redis.streams),
        ("provd_lag_frames", in_redis.frames),
        ("provd_pending_frames", in_redis.pending),
        ("provd_oldest_unstored_seconds", in_redis.oldest_s),
        ("provd_redis_memory_used_bytes", in_redis.memory_used),
        ("provd_redis_memory_max_bytes", in_redis.memory_limit),
        ("provd_producers_spooled_messages", progress.producers.spooled),
    ):
        yield GaugeMetricFamily(name, METRICS[name], value=value)


def _build() -> Any:
    from prometheus_client.core import GaugeMetricFamily

    name = "provd_consumer_build_info"
    family = GaugeMetricFamily(name, METRICS[name], labels=["version", "python"])
    family.add_metric([version("provd"), platform.python_version()], 1)
    return family
