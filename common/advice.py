"""What mends a refusal of Redis or MongoDB, by the words in which their clients report it.

- Only what is certain is said: who reads `certificate verify failed` is told which option names the authority.
- Words that are not known stay as they are, alone.
"""

from __future__ import annotations

import re

_RULES = (
    (
        r"no permissions to run the 'set' command|NOPERM.*'set'",
        "the bucket count of this Redis is not set yet: start `provd consume` first",
    ),
    (r"NOPERM|no permissions to", "this user of Redis may not do that: see deploy/redis/users.acl"),
    (
        r"NOAUTH|Authentication required",
        "name a user and a password: in the URL, or by PROVD_BROKER_PASSWORD_FILE",
    ),
    (
        r"WRONGPASS|invalid username-password|invalid password",
        "check user and password, in the URL or in PROVD_BROKER_PASSWORD",
    ),
    (r"Authentication failed", "check user, password and authSource of the store's URL"),
    (
        r"requires authentication",
        "name a user in the store's URL, and its password or PROVD_STORE_PASSWORD_FILE",
    ),
    (
        r"not authorized on|Unauthorized",
        "this user of MongoDB lacks a role: give it the one of deploy/mongodb/roles.json",
    ),
    (
        r"ostname mismatch|IP address mismatch|doesn't match",
        "use a name of the server that is in its certificate",
    ),
    (r"certificate has expired", "renew the certificate, and look at this machine's clock"),
    (
        r"CERTIFICATE_VERIFY_FAILED",
        "name who signed the server's certificate: ssl_ca_certs=FILE in a Redis URL, tlsCAFile=FILE in one of MongoDB",
    ),
    (
        r"WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE",
        "this port may not speak TLS: check scheme and port",
    ),
)

#: With TLS 1.3 a server that misses a certificate of the client hangs up after the handshake.
_HUNG_UP = re.compile(
    r"(?i)certificate.required|bad.certificate|unknown.ca|handshake.failure|EOF occurred|UNEXPECTED_EOF"
    r"|connection closed|closed by server|connection reset|broken pipe"
)
_HUNG_UP_ADVICE = (
    "the server hung up on TLS: it may ask for a certificate of this client, ssl_certfile=FILE&ssl_keyfile=FILE in a"
    " Redis URL, tlsCertificateKeyFile=FILE in one of MongoDB"
)
_OVER_TLS = re.compile(r"^rediss:|[?&](tls|ssl)=true")
_SILENT = re.compile(r"(?i)timeout connecting|timed out")
_SILENT_ADVICE = "no answer to TLS: check that this port speaks it"

_KNOWN = tuple((re.compile(pattern), advice) for pattern, advice in _RULES)


def advice_for(reason: str, url: str = "") -> str:
    """What mends it, empty where that is not known."""
    advice = next((advice for pattern, advice in _KNOWN if pattern.search(reason)), "")
    if not advice and _OVER_TLS.search(url):
        advice = _HUNG_UP_ADVICE if _HUNG_UP.search(reason) else ""
        advice = advice or (_SILENT_ADVICE if _SILENT.search(reason) else "")
    return advice


def advised(reason: str, url: str = "") -> str:
    """The reason, followed by what mends it if that is known."""
    advice = advice_for(reason, url)
    return f"{reason.rstrip('. ')}; {advice}" if advice and advice not in reason else reason
