"""`provd config`: the effective settings and where each came from, and a file to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from provd.cli.options import BrokerOption, JsonOption, StoreOption, settings_file_of
from provd.common import settings as common_settings
from provd.common.errors import UsageError
from provd.common.passwords import MASK, mask_url
from provd.common.record import Record
from provd.common.settings import KEYS, Settings
from provd.common.sources import LOCAL_FILE, Origin

app = typer.Typer(no_args_is_help=True, help="Settings: what is in force and why, and a file to start from.")

#: Settings that are resolved when they are not set, by the property or method that does it.
_RESOLVED = ("broker_url", "store_url", "spool_dir", "data_dir")


@app.command()
def show(
    context: typer.Context, broker: BrokerOption = None, store: StoreOption = None, json: JsonOption = False
) -> None:
    """Show every setting in force and where its value came from; passwords are masked."""
    from provd.cli import output
    from provd.cli.output import Column

    file = settings_file_of(context)
    overrides = {"broker_url": broker, "store_url": store}
    origins = common_settings.gather(overrides=overrides, settings_file=file)
    settings = common_settings.load(overrides=overrides, settings_file=file)
    entries = {key: _entry(settings, key, origins.get(key)) for key in KEYS}
    if json:
        output.print_json(entries)
        return
    columns = [Column("setting", firm=True), Column("value", folds=True), Column("from", folds=True)]
    output.print_table(columns, [[key, _shown(entry), str(entry["from"])] for key, entry in entries.items()])


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="The file to write; an existing one is left alone.")] = Path(
        LOCAL_FILE
    ),
) -> None:
    """Write a settings file in which every key is explained, with all defaults commented out."""
    from provd.cli import output
    from provd.cli.sample import sample_text

    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(sample_text())
    except FileExistsError:
        raise UsageError(
            f"{path} exists and is left as it is; name another file or remove it first"
        ) from None
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror}; name a file in a folder you can write to"
        ) from None
    output.say(f"wrote {path}; provd reads it as ./{LOCAL_FILE}, by --settings or by PROVD_SETTINGS")


def _entry(settings: Settings, key: str, origin: Origin | None) -> Record:
    value = getattr(settings, key)
    if value is not None and common_settings.is_secret(key):
        value = MASK
    entry: Record = {"value": mask_url(value) if isinstance(value, str) else value}
    entry["source"] = origin.kind if origin else "default"
    entry["from"] = origin.source if origin else "default"
    if key in _RESOLVED:
        effective = _resolved(settings, key)
        if effective != entry["value"]:
            entry["effective"] = effective
    return entry


def _resolved(settings: Settings, key: str) -> str:
    if key == "broker_url":
        return mask_url(settings.resolved_broker_url()) or "none: the spool alone"
    if key == "store_url":
        return mask_url(settings.resolved_store_url())
    return str(settings.spool_path if key == "spool_dir" else settings.data_path)


def _shown(entry: Record) -> str:
    value = entry["value"]
    text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if "effective" not in entry else f"{text} -> {entry['effective']}".lstrip()
