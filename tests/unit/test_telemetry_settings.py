"""Asking for telemetry: by decorator, settings file and environment, in the producer and in the consumer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from provd.common import settings as common
from provd.common.errors import SettingsError
from provd.common.settings import Settings
from provd.common.telemetry import GROUPS, groups_of
from provd.consumer import settings as consumer

ALL_BUT_GPU = ("cpu", "memory", "disk", "network", "process")


@pytest.mark.parametrize(
    ("asked", "groups"),
    [
        (True, ALL_BUT_GPU),
        (False, ()),
        ("true", ALL_BUT_GPU),
        ("off", ()),
        ("", ()),
        ("memory, CPU", ("cpu", "memory")),
        (["gpu"], ("gpu",)),
        (GROUPS, GROUPS),
    ],
)
def test_groups_are_asked_for_by_a_truth_a_text_or_names(asked: Any, groups: tuple[str, ...]) -> None:
    assert groups_of(asked) == groups


def test_a_group_that_there_is_not_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'watts' is no group of readings: use cpu, memory"):
        groups_of("cpu,watts")


def test_the_setting_refuses_such_a_group_and_names_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVD_TELEMETRY", "cpu,watts")

    with pytest.raises(SettingsError, match="PROVD_TELEMETRY: 'watts' is no group"):
        common.load()


@pytest.mark.parametrize("load", [common.load, consumer.load])
@pytest.mark.parametrize(
    ("written", "groups"),
    [("true", ALL_BUT_GPU), ("false", ()), ("[cpu, gpu]", ("cpu", "gpu")), ("cpu, disk", ("cpu", "disk"))],
)
def test_a_settings_file_says_it_in_the_words_of_yaml(
    tmp_path: Path, load: Any, written: str, groups: tuple[str, ...]
) -> None:
    file = tmp_path / "provd.yaml"
    file.write_text(f"telemetry: {written}\nsample_interval_s: 30\n")

    settings: Settings = load(settings_file=file)

    assert settings.telemetry_groups == groups
    assert settings.sample_interval_s == 30.0


def test_by_default_nothing_is_read() -> None:
    settings = common.load()

    assert settings.telemetry_groups == ()
    assert settings.sample_interval_s is None


def test_an_empty_variable_leaves_sampling_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVD_SAMPLE_INTERVAL_S", "")

    assert common.load().sample_interval_s is None
