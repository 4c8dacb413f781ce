"""Options that several commands share, and the settings they lead to."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from provd.common import settings as common_settings
from provd.common.settings import Settings

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
StoreOption = Annotated[
    Optional[str],
    typer.Option(
        "--store", metavar="URL", help="Store to read: mongodb://, mongodb+srv:// or sqlite:///PATH."
    ),
]
BrokerOption = Annotated[
    Optional[str],
    typer.Option("--broker", metavar="URL", help="Broker to use: redis://, rediss:// or unix:///PATH."),
]
SettingsOption = Annotated[
    Optional[str],
    typer.Option(
        "--settings", metavar="FILE", help="Settings file (YAML); else PROVD_SETTINGS, ./provd.yaml."
    ),
]
CampaignOption = Annotated[
    Optional[str], typer.Option("--campaign-id", "-c", metavar="ID", help="Only of this campaign.")
]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id, a unique prefix of it, its name, or `last`.")
]


def settings_of(context: typer.Context, *, settings_file: str | None = None, **overrides: object) -> Settings:
    """The effective settings of a command: its own options win; raises `SettingsError`."""
    return common_settings.load(overrides=overrides, settings_file=settings_file or settings_file_of(context))


def settings_file_of(context: typer.Context) -> str | None:
    """The file named by the global `--settings`."""
    named = context.find_root().obj
    return named if isinstance(named, str) else None
