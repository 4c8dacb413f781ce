"""The settings of the consumer: those of `provd.common.settings`, checked by pydantic.

The dataclass stays the one place where keys and defaults stand; the model is made from it. Precedence is the same
(overrides, environment, file, defaults), and so is what comes out.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_type_hints

from provd.common import settings as common
from provd.common.errors import MissingExtra, SettingsError
from provd.common.settings import PREFIX, Origin, Settings, mask_url

try:
    from pydantic import ValidationError, create_model
    from pydantic_settings import (
        BaseSettings,
        PydanticBaseSettingsSource,
        SettingsConfigDict,
        YamlConfigSettingsSource,
    )
except ImportError as error:
    raise MissingExtra("the consumer", "consumer") from error


def load(
    *, overrides: Mapping[str, object] | None = None, settings_file: str | os.PathLike[str] | None = None
) -> Settings:
    """Read the settings. Raises `SettingsError` that names source, key, value and fix."""
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    origins = common.gather(overrides=given, settings_file=settings_file)  # refuses keys that nobody knows
    file = settings_file or os.environ.get(PREFIX + "SETTINGS") or common.LOCAL_FILE
    try:
        model = _model(Path(file))(**given)
    except ValidationError as error:
        raise SettingsError(_explain(error, origins)) from error
    values = model.model_dump(include=set(origins))
    try:
        return Settings(**values)
    except SettingsError as error:
        raise SettingsError(_with_origin(str(error), values, origins)) from error


def _model(file: Path) -> type[BaseSettings]:
    class FromFile(ConsumerSettings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, YamlConfigSettingsSource(settings_cls, yaml_file=file)

    return FromFile


