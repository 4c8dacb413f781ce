"""Passwords in URLs: put in, looked at, and hidden.

- What is shown of a URL never has its password in it, also where the password was not quoted as it should be.
- What a client says about a URL may quote any part of it: `hide` takes the password out of that, too.
- A port or a path that only looks like a password is left alone, and so are the paths of key files.
"""

from __future__ import annotations

import re

MASK = "***"

#: A URL's password: after its user's name and a colon. What may be a port and a path is not one. Passwords that were
#: not quoted as they should be, with a slash in them, are found by the second branch.
URL_PASSWORD = re.compile(
    r"""(://(?::|[^\s/@:?\#"'<>]{1,128}:(?!\d{1,5}[/?\#])))(?:[^\s/?\#"'<>]{0,1024}|[^\s"'<>]{0,1024}?)@"""
)

#: A part of a URL's query that is a credential; a key's file is none, and its name helps to mend what is wrong.
_QUERY = re.compile(
    r"""(?i)([?&](?:[\w.]*(?:password|passwd|passphrase|secret|token|credential)[\w.]*|[\w.]*key(?!file)\w*"""
    r"""|authMechanismProperties)=)([^&\s"'<>#]+)"""
)
_KEY_FILE = re.compile(r"(?i)[?&]\w*key\w*file=")

#: Shorter ones are hidden only where they stand alone: they may be part of any word.
_LONG = 6


def mask_url(text: str) -> str:
    """The URL, or a text with URLs in it, with passwords and credentials in queries hidden."""
    if "://" not in text:
        return text
    masked = URL_PASSWORD.sub(rf"\1{MASK}@", text)
    return _QUERY.sub(lambda found: found[0] if _KEY_FILE.match(found[0]) else found[1] + MASK, masked)


def hide(text: str, url: str) -> str:
    """What a client said about this URL, with the URL's password hidden in every form the client may have quoted."""
    text = mask_url(text)
    for secret in sorted(passwords_of(url), key=len, reverse=True):
        ends = ("", "") if len(secret) >= _LONG else (r"(?<!\w)", r"(?!\w)")
        text = re.sub(ends[0] + re.escape(secret) + ends[1], MASK, text)
    return text


def passwords_of(url: str) -> frozenset[str]:
    """The URL's credentials, as they stand in it and as the server is told them."""
    from urllib.parse import unquote

    written = {password for _, password in _userinfo(url)} | {found[2] for found in _QUERY.finditer(url)}
    return frozenset(one for text in written for one in (text, unquote(text)) if one and one != MASK)


def unquoted_in(url: str) -> str:
    """Characters of the URL's password that every client takes for the end of it; empty when it is well written."""
    return "".join(sorted({char for _, password in _userinfo(url) for char in password if char in "/?#[]"}))


def with_password(url: str, password: str) -> str:
    """The URL with this password for its user, or for the default user; a password that it has already stays."""
    from urllib.parse import quote  # brings `ipaddress`, and neither is needed to mask

    scheme, separator, rest = url.partition("://")
    if not separator or not password or _userinfo(url):
        return url
    start = re.split(r"[/?#]", rest, maxsplit=1)[0] if scheme != "unix" else rest.partition("/")[0]
    user, at, _ = start.rpartition("@")
    after = rest[len(user) + len(at) :]
    return f"{scheme}://{user.removesuffix(':')}:{quote(password, safe='')}@{after}"


def user_of(url: str) -> str:
    """The user's name in the URL, empty where it has none."""
    start = re.split(r"[/?#]", url.partition("://")[2], maxsplit=1)[0]
    return start.rpartition("@")[0].partition(":")[0]


def _userinfo(url: str) -> list[tuple[str, str]]:
    """User and password of each URL in the text that has a password."""
    found: list[tuple[str, str]] = []
    for match in URL_PASSWORD.finditer(url):
        user, _, password = match[0].removeprefix("://").removesuffix("@").partition(":")
        if password:
            found.append((user, password))
    return found
