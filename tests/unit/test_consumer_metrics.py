"""Metrics are served on the loopback interface, from the consumer's own tally."""

from __future__ import annotations

import urllib.request

import pytest

from provd.common.errors import SettingsError
from provd.consumer.metrics import Metrics
from provd.consumer.progress import Tally
from tests.services.ports import free_port


def test_the_counts_are_served_as_they_are_now() -> None:
    tally = Tally()
    port = free_port()
    metrics = Metrics(port, tally.snapshot)
    try:
        tally.add(received=7, stored=5, duplicates=2)

        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read().decode()
    finally:
        metrics.close()

    assert "provd_consumer_received_total 7.0" in text
    assert "provd_consumer_duplicates_total 2.0" in text


def test_a_port_that_is_taken_is_a_settings_error() -> None:
    port = free_port()
    metrics = Metrics(port, Tally().snapshot)
    try:
        with pytest.raises(SettingsError, match=f"metrics_port {port}"):
            Metrics(port, Tally().snapshot)
    finally:
        metrics.close()
