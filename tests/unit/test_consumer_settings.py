"""The consumer's settings: the same keys, sources and results as everywhere, checked by pydantic."""

from __future__ import annotations

from pathlib import Path

import pytest

from provd.common import settings as common
from provd.common.errors import SettingsError
from provd.consumer import settings


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PROVD_DATA_DIR", raising=False)


def test_without_any_source_the_defaults_are_those_of_the_dataclass() -> None:
    assert settings.load() == common.load() == common.Settings()


def test_the_command_line_goes_before_the_environment_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("buckets: 1\nnamespace: file\nbatch_messages: 10\n")
    monkeypatch.setenv("PROVD_NAMESPACE", "environment")
    monkeypatch.setenv("PROVD_BATCH_MESSAGES", "20")

    loaded = settings.load(overrides={"batch_messages": 30, "store_url": None}, settings_file=file)

    assert (loaded.buckets, loaded.namespace, loaded.batch_messages) == (1, "environment", 30)


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("PROVD_BUCKETS", "many"),
        ("PROVD_BUCKETS", "0"),
        ("PROVD_ENABLED", "perhaps"),
        ("PROVD_CLAIM_AFTER_S", "soon"),
        ("PROVD_BROKER_URL", "amqp://host"),
        ("PROVD_NAMESPACE", "two words"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_its_variable_and_the_value(
    variable: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, text)

    with pytest.raises(SettingsError) as caught:
        settings.load()

    assert variable in str(caught.value)
    assert text in str(caught.value)


def test_a_wrong_value_in_a_file_is_an_error_that_names_file_and_key(tmp_path: Path) -> None:
    (tmp_path / "provd.yaml").write_text("batch_messages: lots\n")

    with pytest.raises(SettingsError, match=r"provd\.yaml: batch_messages is 'lots'"):
        settings.load()


@pytest.mark.parametrize("source", ["file", "environment"])
def test_an_unknown_key_is_an_error_that_names_the_nearest_known_one(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if source == "file":
        (tmp_path / "provd.yaml").write_text("batch_mesages: 10\n")
    else:
        monkeypatch.setenv("PROVD_BATCH_MESAGES", "10")

    with pytest.raises(SettingsError, match="did you mean 'batch_messages'"):
        settings.load()


def test_an_empty_value_is_the_default_where_it_is_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVD_METRICS_PORT", "")
    monkeypatch.setenv("PROVD_BROKER_URL", "")

    loaded = settings.load()

    assert (loaded.metrics_port, loaded.broker_url) == (None, "")


def test_a_password_in_a_wrong_url_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVD_BROKER_URL", "amqp://user:secret@host")

    with pytest.raises(SettingsError) as caught:
        settings.load()

    assert "secret" not in str(caught.value)
