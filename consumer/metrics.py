"""Prometheus metrics, on the loopback interface only.

The numbers are read from the consumer's own tally when someone asks; nothing is counted twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from provd.common.errors import MissingExtra, SettingsError
from provd.consumer.progress import Progress

_HOST = "127.0.0.1"

_COUNTERS = {
    "received": "Messages read from Redis",
    "stored": "Messages that made or changed a document",
    "duplicates": "Messages that changed nothing",
    "quarantined": "Messages that could not be stored",
    "spooled": "Messages put into the consumer's own spool",
    "batches": "Writes to the store",
}


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
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        progress = self._snapshot()
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(f"provd_consumer_{name}", text, value=getattr(progress, name))
        yield CounterMetricFamily(
            "provd_consumer_write_seconds", "Time spent in writes", value=progress.write_s
        )
        yield GaugeMetricFamily("provd_consumer_lag_frames", "Frames not acknowledged", value=progress.lag)
