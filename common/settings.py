"""Settings: every key, its default, and what a value must be.

Where values come from, and which one wins, is `provd.common.sources`; the default stands here and nowhere else.

- An unknown key is an error that names the nearest known one; so is a value of the wrong type or out of bounds.
- Nothing is read at import.
- A password is never shown: not in an error, not by `repr`, and a URL only through `mask_url`.
- `broker_password` and `store_password` meet their URLs in `resolved_broker_url` and `resolved_store_url` alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from provd.common import sources
from provd.common.broker_url import REDIS_SCHEMES, parse_broker_url
from provd.common.errors import InvalidId, SettingsError
from provd.common.ids import check_id
from provd.common.passwords import MASK, mask_url, unquoted_in, user_of, with_password
from provd.common.sources import Origin
from provd.common.telemetry import groups_of

BROKER_SCHEMES = (*REDIS_SCHEMES, "file")
STORE_SCHEMES = ("mongodb", "mongodb+srv", "sqlite")

DURABILITIES = ("memory", "disk")

_MIB = 1 << 20
_GIB = 1 << 30


def _setting(default: Any, help: str, *, at_least: float | None = None, at_most: float | None = None) -> Any:
    return field(default=default, metadata={"help": help, "at_least": at_least, "at_most": at_most})


def _credential(help: str, *, is_url: bool = False) -> Any:
    """A setting that is a password, or a URL that may have one in it."""
    return field(default=None, repr=False, metadata={"help": help, "secret": not is_url})


def _default_data_dir() -> str:
    return os.path.join(os.environ.get("XDG_DATA_HOME") or "~/.local/share", "provd")


@dataclass(frozen=True, slots=True)
class Settings:
    """The effective settings. Raises `SettingsError` when a value makes no sense."""

    enabled: bool = _setting(True, "capture anything at all; off, a decorated call costs one branch")
    broker_url: str | None = _credential(
        "redis://, rediss://, unix:///path, redis+sentinel://, redis+cluster:// or file:///folder (spool only); empty:"
        " spool only; not set: the embedded broker of this user if it runs, else redis://localhost:6379/0, else the spool",
        is_url=True,
    )
    store_url: str | None = _credential(
        "mongodb://, mongodb+srv:// or sqlite:///path; not set: the embedded store of this user if it exists, else"
        " mongodb://localhost:27017/provd",
        is_url=True,
    )
    broker_password: str | None = _credential(
        "the password of broker_url, so that this may stand where others read it; one in the URL itself goes before"
    )
    store_password: str | None = _credential(
        "the password of the user in store_url; one in the URL itself goes before"
    )
    namespace: str = _setting("provd", "prefix of every Redis key; keeps two deployments on one Redis apart")
    workflow_id: str | None = _setting(
        None, "the workflow to join; `auto` makes one id per scheduler job and step"
    )
    campaign_id: str | None = _setting(None, "the campaign that workflows of this process belong to")
    tenant_id: str | None = _setting(
        None,
        "whose records these are: written into every record, and all that reading commands show; not set: all",
    )
    record_variables: str | None = _setting(
        None, "environment variables that workflows record, comma separated; none but the allowlist otherwise"
    )
    record_packages: str | None = _setting(
        None, "installed packages whose versions workflows record, comma separated"
    )
    data_dir: str = field(
        default_factory=_default_data_dir,
        metadata={
            "help": "folder of the embedded broker and store, and of the spool unless that has its own"
        },
    )
    spool_dir: str | None = _setting(
        None, "folder of the JSONL spool, on a disk that outlives the job; not set: `spool` in data_dir"
    )
    durability: str = _setting(
        "memory",
        "memory: a message waits in memory for the next flush; disk: it is in the spool before the call returns, and"
        " stays there until the store has confirmed it",
    )
    drain_on_sigterm: bool = _setting(
        False, "on SIGTERM, send or spool what is left, then go on as the program, or the system, would have"
    )
    flush_interval_s: float = _setting(
        0.2,
        "seconds a finished message may wait in the producer before it is sent",
        at_least=0.01,
        at_most=60,
    )
    buffer_bytes: int = _setting(
        16 * _MIB, "bytes of messages a producer holds in memory before they go to the spool", at_least=_MIB
    )
    frame_messages: int = _setting(500, "messages in one frame at most", at_least=1, at_most=100_000)
    frame_bytes: int = _setting(
        256 * 1024, "bytes of one frame, roughly, at most", at_least=1024, at_most=64 * _MIB
    )
    exit_drain_s: float = _setting(
        2.0,
        "seconds a process may spend at its exit on sending what is left; then it is spooled",
        at_least=0,
        at_most=86_400,
    )
    connect_timeout_s: float = _setting(
        1.0, "seconds to wait for Redis to accept or answer", at_least=0.05, at_most=60
    )
    heartbeat_s: float = _setting(
        10.0, "seconds between a producer's signs of life", at_least=0.5, at_most=3600
    )
    lost_after_s: float = _setting(
        60.0, "seconds of silence after which running work reads as LOST", at_least=1
    )
    spool_ceiling_bytes: int = _setting(
        10 * _GIB, "bytes one process may spool; beyond, messages are dropped and counted", at_least=_MIB
    )
    spool_free_floor: float = _setting(
        0.05, "share of the spool's disk that is left free; below, messages are dropped and counted", at_least=0,
        at_most=0.9,
    )  # fmt: skip
    value_text_max: int = _setting(
        65_536, "characters of a text (or bytes) that a record keeps; longer ones are cut, and say so", at_least=256,
        at_most=8 * _MIB,
    )  # fmt: skip
    value_items_max: int = _setting(
        10_000, "items of one container that a record keeps; of larger ones the first are kept, and they say so",
        at_least=1, at_most=100_000,
    )  # fmt: skip
    value_depth_max: int = _setting(
        16, "containers inside one another that a record keeps; deeper ones are named, not shown", at_least=1,
        at_most=24,
    )  # fmt: skip
    message_bytes_max: int = _setting(
        _MIB, "bytes of one message, packed; in a larger one the largest values are summarised until it fits",
        at_least=16 * 1024, at_most=8 * _MIB,
    )  # fmt: skip
    mask_secrets: bool = _setting(
        True, "mask what looks like a credential, by its name or as the password of a URL, before it leaves the process"
    )  # fmt: skip
    secret_names: str | None = _setting(
        None, "more names of arguments and keys whose values are masked, comma separated: `pin, patient name`"
    )
    buckets: int = _setting(
        16,
        "slots that streams are spread over, fixed by the first process to use a Redis",
        at_least=1,
        at_most=16384,
    )
    claim_after_s: float = _setting(
        60.0, "seconds without a sign of life after which a consumer's frames are taken over", at_least=0.1
    )
    batch_messages: int = _setting(
        2000, "messages in one batch of writes to the store", at_least=1, at_most=100_000
    )
    batch_bytes: int = _setting(
        16 * _MIB, "bytes in one batch of writes to the store, roughly", at_least=_MIB
    )
    batch_wait_s: float = _setting(0.1, "seconds a batch may wait to fill", at_least=0, at_most=60)
    drain_share: float = _setting(
        0.5,
        "share of Redis' maxmemory above which a consumer without a store spools",
        at_least=0.01,
        at_most=1,
    )
    metrics_port: int | None = _setting(None, "loopback port of the Prometheus metrics; not set: none", at_least=1,
                                        at_most=65535)  # fmt: skip
    telemetry: str | None = _setting(
        None,
        "readings of every task that does not say otherwise: true, or a list of cpu, memory, disk, network, process"
        " and gpu, comma separated; true is all but gpu; not set: none",
    )
    sample_interval_s: float | None = _setting(
        None,
        "seconds between samples of each node, taken by one process per node and workflow; not set: none",
        at_least=0.1,
        at_most=86_400,
    )

    def __post_init__(self) -> None:
        for key in _FIELDS:
            _check(key, Origin(getattr(self, key), "setting", "option"), getattr(self, key))

    @property
    def data_path(self) -> Path:
        """`data_dir` as an absolute path."""
        return _absolute(os.path.expanduser(self.data_dir))

    @property
    def spool_path(self) -> Path:
        """Where this process spools: the folder of a `file://` broker, else `spool_dir`, else inside `data_dir`."""
        if self.broker_url is not None and self.broker_url.startswith("file:"):
            return _absolute(self.broker_url.removeprefix("file://"))
        return _absolute(os.path.expanduser(self.spool_dir)) if self.spool_dir else self.data_path / "spool"

    @property
    def embedded_socket(self) -> Path:
        """The unix socket of this user's embedded broker; a path too long for a socket gets a short stand-in."""
        path = self.data_path / "redis" / "redis.sock"
        if len(os.fsencode(path)) <= _SOCKET_PATH_MAX:
            return path
        import hashlib

        digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
        return Path(f"/tmp/provd-{os.getuid()}") / f"{digest}.sock"  # noqa: S108 - made 0700 and checked by its maker

    @property
    def embedded_store(self) -> Path:
        """The file of this user's embedded store."""
        return self.data_path / "provd.db"

    @property
    def telemetry_groups(self) -> tuple[str, ...]:
        """The groups of readings that `telemetry` names."""
        return groups_of(self.telemetry or "")

    def resolved_broker_url(self) -> str:
        """The broker to use; empty for the spool alone."""
        if self.broker_url is not None:
            url = "" if self.broker_url.startswith("file:") else self.broker_url
            return with_password(url, self.broker_password or "") if url else ""
        socket = self.embedded_socket
        return f"unix://{socket}" if socket.exists() else "redis://localhost:6379/0"

    def resolved_store_url(self) -> str:
        """The store to use."""
        if self.store_url is not None:
            named = self.store_url.startswith("mongodb") and user_of(self.store_url)
            return with_password(self.store_url, self.store_password or "") if named else self.store_url
        file = self.embedded_store
        return f"sqlite:///{file}" if file.exists() else "mongodb://localhost:27017/provd"


def _absolute(path: str) -> Path:
    try:
        return Path(path).absolute()
    except FileNotFoundError:
        return Path(path)  # the working directory is gone: who writes here is told so, not who asks


#: Longest path of a unix socket that every supported system takes.
_SOCKET_PATH_MAX = 100

_FIELDS = {item.name: item for item in fields(Settings)}

KEYS: tuple[str, ...] = tuple(_FIELDS)

#: Without these nobody knows where messages should go.
_WHERE_TO = ("broker_url", "broker_password")


def is_secret(key: str) -> bool:
    """Whether a value of this key is shown to nobody; URLs are shown masked."""
    return bool(_FIELDS[key].metadata.get("secret"))


def load(
    *,
    overrides: Mapping[str, object] | None = None,
    settings_file: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Read the settings. Raises `SettingsError` that names source, key, value and fix."""
    origins = gather(overrides=overrides, settings_file=settings_file, environ=environ)
    return Settings(**{key: _convert(key, origin) for key, origin in origins.items()})


def load_leniently(environ: Mapping[str, str] | None = None) -> tuple[Settings, list[SettingsError]]:
    """Read the settings inside a user's program, where nothing may be refused (G1).

    What is wrong is left at its default and returned; when it is not known where messages should go, they go to the
    spool.
    """
    wrong: dict[str, list[SettingsError]] = {}
    values: dict[str, Any] = {}
    try:
        origins = sources.gather(KEYS, environ=environ, wrong=wrong)
    except SettingsError as error:
        return Settings(broker_url=""), [error]
    for key, origin in origins.items():
        try:
            values[key] = _convert(key, origin)
        except SettingsError as error:
            wrong.setdefault(key, []).append(error)
    if not wrong.keys().isdisjoint(_WHERE_TO):
        values["broker_url"] = ""
    return Settings(**values), [error for errors in wrong.values() for error in errors]


def gather(
    *,
    overrides: Mapping[str, object] | None = None,
    settings_file: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> dict[str, Origin]:
    """Every value that is given somewhere, by key; raises `SettingsError` for what nobody knows or can read."""
    return sources.gather(KEYS, overrides=overrides, settings_file=settings_file, environ=environ)


def _convert(key: str, origin: Origin) -> Any:
    """A value as its key's type; text is read as YAML would read it."""
    kind = str(_FIELDS[key].type)
    value = as_text(key, origin.value)
    if isinstance(value, str) and "str" not in kind:
        value = _from_text(key, value.strip(), kind, origin)
    if "str" in kind and isinstance(value, os.PathLike):
        value = os.fspath(value)
    if kind.startswith("float") and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if value is None and _FIELDS[key].default is not None:
        value = _default(key)
    _check(key, origin, value)
    return value


def as_text(key: str, value: Any) -> Any:
    """The value of a key that is text and that YAML writes as a truth or a list; any other value as it is."""
    if key == "telemetry" and isinstance(value, bool):
        return str(value).lower()
    if key == "telemetry" and isinstance(value, list):
        return ",".join(str(item) for item in value)
    return value


def _default(key: str) -> Any:
    item = _FIELDS[key]
    return item.default if item.default_factory is MISSING else item.default_factory()


_WORDS = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


def _from_text(key: str, text: str, kind: str, origin: Origin) -> Any:
    try:
        if kind == "bool":
            return _WORDS[text.lower()]
        if kind.startswith("int"):
            return int(text) if text else None
        return float(text) if text or "None" not in kind else None
    except (KeyError, ValueError):
        raise SettingsError(f"{origin.source} is {shown(key, origin, text)}: {_expected(key)}") from None


def _expected(key: str) -> str:
    item = _FIELDS[key]
    kind = str(item.type).partition(" ")[0]
    words = {
        "bool": "use true or false",
        "int": "use a whole number",
        "float": "use a number",
        "str": "use text",
    }[kind]
    low, high = item.metadata.get("at_least"), item.metadata.get("at_most")
    if low is not None:
        words += f" from {low:g}" + (f" to {high:g}" if high is not None else " up")
    return words


_TYPES: dict[str, tuple[type, ...]] = {"bool": (bool,), "int": (int,), "float": (float, int), "str": (str,)}


def shown(key: str, origin: Origin, value: object) -> str:
    """A value as an error may quote it."""
    return MASK if is_secret(key) or origin.is_secret else mask_url(repr(value))


def _check(key: str, origin: Origin, value: Any) -> None:
    item = _FIELDS[key]
    kind, _, optional = str(item.type).partition(" ")
    if value is None and optional:
        return
    said = f"{origin.source} is {shown(key, origin, value)}"
    if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "bool"):
        raise SettingsError(f"{said}: {_expected(key)}")
    low, high = item.metadata.get("at_least"), item.metadata.get("at_most")
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        raise SettingsError(f"{said}: {_expected(key)}")
    _check_meaning(key, origin, value, said)


def _check_meaning(key: str, origin: Origin, value: Any, said: str) -> None:
    if key == "broker_url" and value:
        _check_url(value, BROKER_SCHEMES, said)
        _check_broker(value, said)
    elif key == "store_url":
        _check_url(value, STORE_SCHEMES, said)
    elif key == "durability" and value not in DURABILITIES:
        raise SettingsError(f"{said}: use {' or '.join(DURABILITIES)}")
    elif key in ("workflow_id", "campaign_id", "tenant_id", "namespace"):
        try:
            check_id(value, origin.source)
        except InvalidId as error:
            message = f"{said}: use 1-128 letters, digits and ._-" if origin.is_secret else str(error)
            raise SettingsError(message) from None
    elif key == "telemetry":
        try:
            groups_of(value)
        except ValueError as error:
            raise SettingsError(said if origin.is_secret else f"{origin.source}: {error}") from None


def _check_broker(url: str, said: str) -> None:
    if not url.startswith("file:"):
        try:
            parse_broker_url(url)
        except SettingsError as error:
            raise SettingsError(f"{said}: {error}") from None


def _check_url(url: str, schemes: tuple[str, ...], said: str) -> None:
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme not in schemes:
        allowed = ", ".join(f"{name}://" for name in schemes)
        raise SettingsError(f"{said}: this version takes {allowed}")
    odd = unquoted_in(url)
    if odd:
        codes = ", ".join(f"%{ord(char):02X} for {char}" for char in odd)
        raise SettingsError(f"{said}: write its password percent-encoded: {codes}")
