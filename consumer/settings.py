"""The settings of the consumer: those of `provd.common.settings`, read and checked by pydantic-settings.

The dataclass stays the one place where keys, defaults and bounds stand; the model is made from it. Precedence is
that of `provd.common.sources`, and so is what comes out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, get_type_hints

from provd.common import settings as common
from provd.common import sources
from provd.common.errors import MissingExtra, SettingsError
from provd.common.settings import Settings
from provd.common.sources import PREFIX, Origin

try:
    from pydantic import Field, ValidationError, ValidationInfo, create_model, field_validator
    from pydantic_settings import (
        BaseSettings,
        InitSettingsSource,
        PydanticBaseSettingsSource,
        SettingsConfigDict,
        YamlConfigSettingsSource,
    )
except ImportError as missing:
    raise MissingExtra("the consumer", "consumer") from missing


def load(
    *, overrides: Mapping[str, object] | None = None, settings_file: str | os.PathLike[str] | None = None
) -> Settings:
    """Read the settings. Raises `SettingsError` that names source, key, value and fix."""
    given: dict[str, Any] = {key: value for key, value in (overrides or {}).items() if value is not None}
    origins = common.gather(overrides=given, settings_file=settings_file)  # refuses what nobody knows
    try:
        values = _model(settings_file, origins)(**given).model_dump(include=set(origins))
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(item, origins) for item in error.errors())) from error
    try:
        return Settings(**values)
    except SettingsError:
        # What the dataclass alone knows to be wrong, it words best where it also knows the source.
        common.load(overrides=given, settings_file=settings_file)
        raise


class _Sourced(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore")

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_default(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[str(info.field_name)]
        value = common.as_text(str(info.field_name), value)
        is_text = "str" in str(field.annotation)
        if value is None or (value == "" and not is_text):
            return field.get_default(call_default_factory=True)
        return os.fspath(value) if is_text and isinstance(value, os.PathLike) else value


def _model(settings_file: str | os.PathLike[str] | None, origins: Mapping[str, Origin]) -> type[BaseSettings]:
    file = sources.settings_file_of(settings_file)
    secrets = {key: origin.value for key, origin in origins.items() if origin.is_secret}

    class FromFile(_Sourced):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            from_files = InitSettingsSource(settings_cls, init_kwargs=secrets)
            from_yaml = YamlConfigSettingsSource(settings_cls, yaml_file=file)
            return init_settings, env_settings, from_files, from_yaml

    types = get_type_hints(Settings)
    definitions: dict[str, Any] = {}
    for item in fields(Settings):
        facts: dict[str, Any] = {"ge": item.metadata.get("at_least"), "le": item.metadata.get("at_most")}
        if item.default is MISSING:
            facts["default_factory"] = item.default_factory
        else:
            facts["default"] = item.default
        definitions[item.name] = (types[item.name], Field(**facts))
    return create_model("ConsumerSettings", __base__=FromFile, **definitions)


def _explain(item: Any, origins: Mapping[str, Origin]) -> str:
    key = str(item["loc"][0]) if item["loc"] else "settings"
    if key not in origins:
        return f"{key}: {_lower(item['msg'])}"
    return f"{origins[key].source} is {common.shown(key, origins[key], item['input'])}: {_lower(item['msg'])}"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
