"""The settings of the consumer: those of `provd.common.settings`, read and checked by pydantic-settings.

The dataclass stays the one place where keys, defaults and bounds stand; the model is made from it. Precedence is
the same (overrides, environment, file, defaults), and so is what comes out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_type_hints

from provd.common import settings as common
from provd.common.errors import MissingExtra, SettingsError
from provd.common.settings import PREFIX, Settings, mask_url

try:
    from pydantic import Field, ValidationError, ValidationInfo, create_model, field_validator
    from pydantic_settings import (
        BaseSettings,
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
        values = _model(settings_file)(**given).model_dump(include=set(origins))
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


def _model(settings_file: str | os.PathLike[str] | None) -> type[BaseSettings]:
    file = Path(settings_file or os.environ.get(PREFIX + "SETTINGS") or common.LOCAL_FILE)

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
            return init_settings, env_settings, YamlConfigSettingsSource(settings_cls, yaml_file=file)

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


def _explain(item: Any, origins: Mapping[str, common.Origin]) -> str:
    key = str(item["loc"][0]) if item["loc"] else "settings"
    source = origins[key].source if key in origins else key
    return f"{source} is {mask_url(repr(item['input']))}: {_lower(item['msg'])}"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
