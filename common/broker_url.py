"""A broker's address: what a URL means, for producers, consumers and commands alike.

redis://[USER:PASSWORD@]HOST:PORT/DB            one server
rediss://...                                    the same over TLS; options as the client names them, `?ssl_ca_certs=FILE`
unix:///PATH                                    one server on this machine
redis+sentinel://[USER:PASSWORD@]HOST:PORT,HOST:PORT/SERVICE[/DB][?OPTIONS]     the master that these Sentinels name
redis+cluster://[USER:PASSWORD@]HOST:PORT,HOST:PORT[?OPTIONS]                   all masters that these servers name

OPTIONS of the last two: `tls=true` and the client's `ssl_...`, `client_name`; for Sentinels that ask for a password
of their own, `sentinel_username` and `sentinel_password`. User and password in front are those of the servers.

- An error names the part that is wrong and how to mend it, never the whole URL: that may hold a password.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from provd.common.errors import SettingsError

SINGLE_SCHEMES = ("redis", "rediss", "unix")
SENTINEL_SCHEME = "redis+sentinel"
CLUSTER_SCHEME = "redis+cluster"

#: Every scheme that leads to Redis.
REDIS_SCHEMES = (*SINGLE_SCHEMES, SENTINEL_SCHEME, CLUSTER_SCHEME)

_SENTINEL_PORT = 26379
_REDIS_PORT = 6379

_FORMS = {
    SENTINEL_SCHEME: f"{SENTINEL_SCHEME}://HOST:26379,HOST:26379,HOST:26379/SERVICE",
    CLUSTER_SCHEME: f"{CLUSTER_SCHEME}://HOST:6379,HOST:6379,HOST:6379",
}

_OWN_OPTIONS = ("tls", "sentinel_username", "sentinel_password")

#: What else may stand in the query: handed to the client as it is.
_CLIENT_OPTIONS = (
    "client_name",
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_password",
    "ssl_cert_reqs",
    "ssl_check_hostname",
    "ssl_ciphers",
)

_WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class BrokerKind(Enum):
    """How the servers behind an address are found."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where Redis is. `hosts` are the Sentinels, or the servers of a Cluster that are asked first."""

    kind: BrokerKind
    hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""
    #: What stands around host and port in the URL of one server, and of one Sentinel. They hold passwords.
    _server: tuple[str, str] = field(default=("", ""), repr=False)
    _sentinel: tuple[str, str] = field(default=("", ""), repr=False)

    def server_url(self, host: str = "", port: int = 0) -> str:
        """The URL of one Redis server as the client takes it; host and port count where there may be several."""
        head, tail = self._server
        return f"{head}{_netloc(host, port)}{tail}" if host else head + tail

    def sentinel_url(self, host: str, port: int) -> str:
        """The URL of one Sentinel as the client takes it."""
        head, tail = self._sentinel
        return f"{head}{_netloc(host, port)}{tail}"


def parse_broker_url(url: str) -> BrokerAddress:
    """Read a broker's URL. Raises `SettingsError`."""
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme in SINGLE_SCHEMES:
        _check_single(url)
        return BrokerAddress(BrokerKind.SINGLE, _server=(url, ""))
    if scheme in _FORMS:
        return _parse_many(scheme, url)
    raise SettingsError(f"use {', '.join(f'{name}://' for name in REDIS_SCHEMES)}")


def _check_single(url: str) -> None:
    try:
        _ = urlsplit(url).port
    except ValueError as error:
        raise SettingsError(f"{error}; write redis://HOST:PORT/0") from None


def _parse_many(scheme: str, url: str) -> BrokerAddress:
    # By hand: `urlsplit` knows one port per URL. A password may hold anything but the slash that ends this part.
    rest, _, query = url.partition("://")[2].partition("?")
    authority, _, path = rest.partition("/")
    user, _, listed = authority.rpartition("@")
    options = _read_options(scheme, query)
    secure = options.pop("tls", "false").lower()
    if secure not in _WORDS:
        raise SettingsError(f"option tls of {scheme}:// is {secure!r}: use tls=true or tls=false")
    plain = "rediss" if _WORDS[secure] else "redis"
    sentinel_user = _userinfo(options.pop("sentinel_username", ""), options.pop("sentinel_password", ""))
    if not _WORDS[secure] and any(name.startswith("ssl_") for name in options):
        raise SettingsError(f"options ssl_... of {scheme}:// need tls=true: add it, or leave them out")
    tail = f"?{urlencode(options)}" if options else ""
    service, database = _read_path(scheme, path)
    return BrokerAddress(
        BrokerKind.SENTINEL if scheme == SENTINEL_SCHEME else BrokerKind.CLUSTER,
        _read_hosts(scheme, listed),
        service,
        (f"{plain}://{user}@" if user else f"{plain}://", f"/{database}{tail}"),
        (f"{plain}://{sentinel_user}", f"/{tail}"),
    )


def _read_hosts(scheme: str, listed: str) -> tuple[tuple[str, int], ...]:
    hosts = []
    for number, one in enumerate(listed.split(","), 1):
        try:
            parts = urlsplit(f"//{one}")
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise SettingsError(f"host {number} of {scheme}://: {error}; write {_FORMS[scheme]}") from None
        if not host:
            raise SettingsError(f"host {number} of {scheme}:// is empty; write {_FORMS[scheme]}")
        hosts.append((host, port or (_SENTINEL_PORT if scheme == SENTINEL_SCHEME else _REDIS_PORT)))
    return tuple(hosts)


def _read_path(scheme: str, path: str) -> tuple[str, int]:
    parts = path.rstrip("/").split("/") if path else []
    service = parts.pop(0) if parts and scheme == SENTINEL_SCHEME else ""
    if scheme == SENTINEL_SCHEME and not service:
        raise SettingsError(
            f"{scheme}:// names no service, the name that Sentinel has for the master; write {_FORMS[scheme]}"
        )
    database = parts.pop(0) if parts else "0"
    if parts or not (database.isascii() and database.isdecimal()):
        raise SettingsError(f"the database of {scheme}:// is not a number; write {_FORMS[scheme]}/0")
    if scheme == CLUSTER_SCHEME and int(database) != 0:
        raise SettingsError(f"a Redis Cluster has database 0 only; write {_FORMS[scheme]}")
    return service, int(database)


def _read_options(scheme: str, query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    known = [*_OWN_OPTIONS, *_CLIENT_OPTIONS]
    if scheme != SENTINEL_SCHEME:
        known = [name for name in known if not name.startswith("sentinel_")]
    for name in options:
        if name not in known:
            import difflib

            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known)}"
            raise SettingsError(f"{scheme}:// has no option {name!r}; {hint}")
    return options


def _userinfo(user: str, password: str) -> str:
    return f"{quote(user, safe='')}:{quote(password, safe='')}@" if user or password else ""


def _netloc(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
