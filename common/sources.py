"""Where the values of settings come from: options, the environment, files it names, and the settings file.

A value is taken from the first of these that has it:

1. the command line (`overrides`),
2. the environment: `PROVD_` and the key in capitals,
3. the file that the environment names: `PROVD_`, the key in capitals, and `_FILE`,
4. a file of a secrets folder: `PROVD_SECRETS_DIR/<key>`, or `<key>` behind `provd_` or `provd.`; then systemd's
   `CREDENTIALS_DIRECTORY`, where the name must begin with `provd_` or `provd.`, as other programs' stand there too,
5. the settings file: `--settings`, else `PROVD_SETTINGS`, else `./provd.yaml` if it exists.

- Nothing is read at import, no file whose value is not needed, and PyYAML is loaded only for a settings file.
- A file that holds one value is a regular file of a few KiB: a pipe or a device would hold up whoever reads it.
- What a file of one value holds is never shown: it may be the password that was meant for another key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from provd.common.errors import SettingsError
from provd.common.files import open_regular

PREFIX = "PROVD_"
LOCAL_FILE = "provd.yaml"

#: Variables of ours that are not settings.
OTHER_VARIABLES = frozenset(
    {
        PREFIX + "SETTINGS",
        PREFIX + "SECRETS_DIR",
        PREFIX + "PARENT_TASK_ID",
        PREFIX + "TEST_REDIS_URL",
        PREFIX + "TEST_MONGO_URL",
    }
)

_SECRETS_DIR = PREFIX + "SECRETS_DIR"
_CREDENTIALS_DIR = "CREDENTIALS_DIRECTORY"
_FILE_SUFFIX = "_FILE"
_NAME_PREFIXES = ("provd_", "provd.")

#: Bytes of a file that holds one value; the longest value that makes sense is a URL with many hosts.
_VALUE_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Origin:
    """A value as it was given, and by what: shown by `provd config show` and named in errors."""

    value: object
    source: str
    #: The kind of place: `option`, `environment`, `secret` (a file that holds this one value) or `file`.
    kind: str

    @property
    def is_secret(self) -> bool:
        """Whether the value is never shown, whatever its key is."""
        return self.kind == "secret"


def gather(
    keys: Collection[str],
    *,
    overrides: Mapping[str, object] | None = None,
    settings_file: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] | None = None,
    wrong: dict[str, list[SettingsError]] | None = None,
) -> dict[str, Origin]:
    """Every value that is given somewhere, by key, from the highest source that has it.

    Raises `SettingsError` for a file that cannot be read and for an unknown key, unless `wrong` collects them, by key.
    """
    environ = os.environ if environ is None else environ
    collect = _Collector(keys, wrong)
    for key, value in (overrides or {}).items():
        if value is not None:
            collect.origins[key] = Origin(value, "--" + key.replace("_url", "").replace("_", "-"), "option")
    collect.environment(environ)
    for variable, needs_prefix in ((_SECRETS_DIR, False), (_CREDENTIALS_DIR, True)):
        folder = environ.get(variable)
        if folder:
            collect.secrets(folder, variable, needs_prefix=needs_prefix)
    file = settings_file_of(settings_file, environ)
    if file:
        collect.settings(file)
    return collect.origins


def settings_file_of(
    named: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None
) -> str | None:
    """The settings file in force, None where there is none."""
    environ = os.environ if environ is None else environ
    file = named or environ.get(PREFIX + "SETTINGS") or (LOCAL_FILE if os.path.exists(LOCAL_FILE) else None)
    return os.fspath(file) if file else None


class _Collector:
    """Takes values from one source after another; the first that has a key wins."""

    def __init__(self, keys: Collection[str], wrong: dict[str, list[SettingsError]] | None) -> None:
        self.origins: dict[str, Origin] = {}
        self._keys = keys
        self._wrong = wrong

    def environment(self, environ: Mapping[str, str]) -> None:
        """Take the variables, then the files that variables name."""
        files: list[tuple[str, str, str]] = []
        for name, text in environ.items():
            if not name.startswith(PREFIX) or name in OTHER_VARIABLES:
                continue
            key = name[len(PREFIX) :].lower()
            stem = key[: -len(_FILE_SUFFIX)] if key.endswith(_FILE_SUFFIX.lower()) else ""
            if stem in self._keys and key not in self._keys:
                files.append((stem, name, text))
            elif self._is_known(key, f"in the environment ({name})"):
                self._add(key, Origin(text, name, "environment"))
        for key, name, path in files:
            self._add_file(key, path, name)

    def secrets(self, folder: str, variable: str, *, needs_prefix: bool) -> None:
        """Take the files of a folder that are named after keys; others are somebody else's."""
        try:
            names = sorted(os.listdir(folder))
        except OSError as error:
            mend = "name a folder that this user can read, or unset it"
            self._refuse("", SettingsError(f"{variable} is {folder}: {error.strerror}; {mend}"))
            return
        for key, name in _named_after(self._keys, names, needs_prefix=needs_prefix):
            self._add_file(key, os.path.join(folder, name), variable)

    def settings(self, file: str) -> None:
        """Take what the settings file says."""
        for key, value in _read_settings(file).items():
            if self._is_known(str(key), f"in {file}"):
                self._add(str(key), Origin(value, f"{file}: {key}", "file"))

    def _add(self, key: str, origin: Origin) -> None:
        self.origins.setdefault(key, origin)

    def _add_file(self, key: str, path: str, named_by: str) -> None:
        if key in self.origins:
            return
        try:
            self.origins[key] = Origin(_read_value(path), f"{path} ({named_by})", "secret")
        except SettingsError as error:
            self._refuse(key, SettingsError(f"{named_by} names {path}: {error}"))

    def _is_known(self, key: str, where: str) -> bool:
        if key in self._keys:
            return True
        import difflib

        near = difflib.get_close_matches(key, self._keys, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "; `provd config show` lists them all"
        self._refuse("", SettingsError(f"unknown setting {key!r} {where}{hint}"))
        return False

    def _refuse(self, key: str, error: SettingsError) -> None:
        if self._wrong is None:
            raise error
        self._wrong.setdefault(key, []).append(error)


def _named_after(keys: Collection[str], names: list[str], *, needs_prefix: bool) -> Iterator[tuple[str, str]]:
    """Keys, and the files named after them; the plain name comes first."""
    for prefix in _NAME_PREFIXES if needs_prefix else ("", *_NAME_PREFIXES):
        for name in names:
            key = name.lower()
            if key.startswith(prefix) and key[len(prefix) :] in keys:
                yield key[len(prefix) :], name


def _read_value(path: str) -> str:
    """The one value that a file holds, without the newline at its end."""
    try:
        with open_regular(path) as stream:
            raw = stream.read(_VALUE_MAX + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SettingsError(f"{reason}; name a file that this user can read") from None
    if len(raw) > _VALUE_MAX:
        raise SettingsError(f"it is longer than {_VALUE_MAX // 1024} KiB; let it hold the value alone")
    try:
        text = raw.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise SettingsError("it is not text in UTF-8; let it hold the value alone") from None
    if not text:
        raise SettingsError("it is empty; write the value into it, or do not name it")
    if any(char in text for char in "\r\n\0"):
        raise SettingsError("it has more than one line; let it hold the value alone")
    return text


def _read_settings(file: str) -> dict[Any, Any]:
    try:
        with open(file, encoding="utf-8") as stream:
            text = stream.read()
    except OSError as error:
        raise SettingsError(f"settings file {file}: {error.strerror}; name a readable YAML file") from error
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"settings file {file} is not text in UTF-8; name a readable YAML file"
        ) from error
    import yaml

    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: the 30th of February
        raise SettingsError(f"settings file {file} is not YAML: {_where(error)}") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise SettingsError(f"settings file {file}: write one `key: value` a line; see settings.sample.yaml")
    return document


def _where(error: Exception) -> str:
    """What is wrong and in which line, without the line itself, which may hold a password."""
    mark = getattr(error, "problem_mark", None)
    problem = re.sub(r"'[^']{2,}'", "...", str(getattr(error, "problem", None) or "a value cannot be read"))
    return problem if mark is None else f"{problem}, line {mark.line + 1}, column {mark.column + 1}"
