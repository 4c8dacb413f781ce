"""Credentials, masked before they leave the process (G8).

- A name is judged once and remembered: on the call path that is a look into a set. `None` and booleans are shown, for
  whether a password was given is no secret.
- Vocabulary is not a credential: `max_tokens`, `pad_token`, `tokenizer`, `author` and `secretary` stay as they are.
- What is masked becomes `***`. In doubt a value is masked: a lost value can be looked up, a leaked one cannot be
  called back.
- Every pattern is bounded, so that hostile text costs time in proportion to its length.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from provd.common.passwords import MASK, URL_PASSWORD
from provd.common.record import Record

#: Characters beyond a cut that are looked at, so that a credential is seen whole before the text is cut.
EDGE = 2048

#: Names that are remembered at most; a program with ever new names has the rest judged each time.
_NAMES_MAX = 10_000
_NAME_MAX = 256

#: Words that make a name a credential wherever they stand in it.
_ALWAYS = frozenset(
    {
        "password", "passwords", "passwd", "passphrase", "passcode", "pwd", "secret", "secrets", "apikey", "apikeys",
        "credential", "credentials", "creds", "authorization", "privatekey", "accesskey", "secretkey", "authtoken",
        "accesstoken", "bearer", "jwt", "cookie", "cookies",
    }
)  # fmt: skip

#: Words before `key` or `keys` that make it one.
_KEYS = frozenset(
    {"api", "private", "access", "secret", "auth", "account", "signing", "encryption", "ssh", "session", "master"}
)  # fmt: skip

#: Words that may follow `token` or `auth` in the name of a credential.
_CARRIERS = frozenset(
    {"value", "key", "header", "headers", "string", "str", "token", "code", "data", "info", "env"}
)

#: Words before `token` that make it a piece of text, as in language models, not a credential.
_VOCABULARY = frozenset(
    {
        "pad", "padding", "eos", "bos", "sos", "eot", "mask", "cls", "sep", "unk", "unknown", "special", "stop", "start",
        "end", "next", "prev", "previous", "first", "last", "max", "min", "num", "n", "per", "image", "audio", "video",
        "text", "input", "output", "prompt", "target", "source", "label", "class", "decoder", "encoder", "newline",
        "by", "current", "cur", "sub", "word", "char", "byte", "visual", "patch", "time", "separator", "begin", "is",
    }
)  # fmt: skip

#: Fields of a record that hold what a program wrote, or was started with.
_WRITTEN = frozenset({"stdout", "stderr", "traceback", "argv"})

#: What every credential's name contains; anything else is waved through without being taken apart.
_STEMS = ("pass", "pwd", "secret", "token", "key", "cred", "auth", "bearer", "jwt", "cookie")

#: Names that run words together, such as `dbpassword`.
_ENDINGS = (
    "password",
    "passwd",
    "apikey",
    "secretkey",
    "accesskey",
    "privatekey",
    "authtoken",
    "accesstoken",
)

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\dA-Za-z_]+")

#: A token that stands where a user's name would, as in the remotes of code hosts.
_URL_TOKEN = re.compile(r"""(https?://)[^\s/@:?\#"'<>]{16,1024}@""")

_URL_QUERY = re.compile(r"""([?&;])([A-Za-z_][\w.\-]{0,64})=([^&;\s"'<>\#]{1,4096})""")

_QUOTED = r"""'(?:[^'\\]|\\.){0,4096}'|"(?:[^"\\]|\\.){0,4096}\""""

#: `name=value`, `'name': 'value'`, and the header that carries credentials.
_PAIR = re.compile(
    rf"""(?<![\w.\-])(-{{0,2}}[A-Za-z_][\w.\-]{{0,64}})([ ]{{0,2}}=(?!=)[ ]{{0,2}})({_QUOTED}|[^\s,;&)\]}}"']+)"""
)
_ITEM = re.compile(
    rf"""(["'])([A-Za-z_][\w.\-]{{0,64}})(\1[ ]{{0,2}}:[ ]{{0,2}})({_QUOTED}|[^\s,;)\]}}"']+)"""
)
_HEADER = re.compile(r"(?i)\b((?:proxy-)?authorization[ ]{0,2}:[ ]{0,2})[^\r\n\"']{1,4096}")


class Secrets:
    """Which names are credentials, and how they are masked."""

    def __init__(self, names: str = "", *, masked: bool = True) -> None:
        """`names` are added to the built-in ones: comma separated, in any case, each one or several words."""
        self._masked = masked
        self._added = [tuple(words) for words in map(_words, names.split(",")) if words]
        #: Names that were judged and are none.
        self.innocent: set[str] = set()
        self._guilty: set[str] = set()
        self._rows: dict[tuple[str, ...], tuple[int, ...]] = {}

    def is_secret(self, name: str) -> bool:
        """Whether the value under this name is to be masked."""
        if name in self.innocent:
            return False
        if name in self._guilty:
            return True
        secret = self._masked and self._judge(name[:_NAME_MAX])
        known = self._guilty if secret else self.innocent
        if len(known) < _NAMES_MAX and len(name) <= _NAME_MAX:
            known.add(name)
        return secret

    def positions(self, names: tuple[str, ...]) -> tuple[int, ...]:
        """Where in a row of these names credentials stand."""
        found = self._rows.get(names)
        if found is None:
            found = tuple(index for index, name in enumerate(names) if self.is_secret(name))
            if len(self._rows) < _NAMES_MAX:
                self._rows[names] = found
        return found

    def text(self, text: str) -> str:
        """A text value with the passwords and tokens of its URLs masked."""
        if "://" not in text or not self._masked:
            return text
        text = URL_PASSWORD.sub(rf"\1{MASK}@", text)
        text = _URL_TOKEN.sub(rf"\1{MASK}@", text)
        return _URL_QUERY.sub(self._query, text)

    def raw(self, value: bytes) -> bytes:
        """Bytes with the passwords and tokens of their URLs masked."""
        if b"://" not in value or not self._masked:
            return value
        return self.text(value.decode("latin-1")).encode("latin-1")

    def output(self, text: str) -> str:
        """Text that a program wrote, such as an error's message or a traceback: also `name=value` is masked."""
        if not self._masked:
            return text
        text = _HEADER.sub(rf"\1{MASK}", self.text(text))
        text = _ITEM.sub(self._item, text)
        return _PAIR.sub(self._pair, text)

    def fields(self, record: Record) -> Record:
        """A record with its output, command line, names and labels masked; values were masked when they were captured."""
        if not self._masked:
            return record
        masked: Record = {}
        for name, value in record.items():
            if type(value) is str:
                if name in _WRITTEN:
                    masked[name] = self.output(value)
                elif "://" in value:  # names and labels
                    masked[name] = self.text(value)
            elif type(value) is list and name in _WRITTEN:
                masked[name] = self.argv([str(argument) for argument in value])
            elif type(value) is list and name == "tags":
                masked[name] = [self.output(str(tag)) for tag in value]
        return {**record, **masked} if masked else record

    def argv(self, arguments: Iterable[str]) -> list[str]:
        """A command line: `--password x`, `--password=x`, `PASSWORD=x`, and all that may stand in text."""
        masked: list[str] = []
        awaits_value = False
        for argument in arguments:
            is_option = argument.startswith("-")
            masked.append(MASK if awaits_value and not is_option else self._argument(argument))
            name = argument.lstrip("-")
            awaits_value = (
                argument.startswith("--")
                and not name.startswith("no-")
                and "=" not in name
                and self.is_secret(name)
            )
        return masked

    def _argument(self, argument: str) -> str:
        name, equals, value = argument.partition("=")
        if equals and value and self.is_secret(name.lstrip("-")):
            return f"{name}={MASK}"
        return self.output(argument)

    def _judge(self, name: str) -> bool:
        low = name.lower()
        if not self._added and not any(stem in low for stem in _STEMS):
            return False
        words = _words(name)
        if any(_contains(words, added) for added in self._added):
            return True
        return any(_is_credential(words, index) for index in range(len(words)))

    def _query(self, found: re.Match[str]) -> str:
        lead, name, _ = found.groups()
        return f"{lead}{name}={MASK}" if self.is_secret(name) else found[0]

    def _pair(self, found: re.Match[str]) -> str:
        name, equals, _ = found.groups()
        return f"{name}{equals}{MASK}" if self.is_secret(name.lstrip("-")) else found[0]

    def _item(self, found: re.Match[str]) -> str:
        quote, name, colon, value = found.groups()
        if not self.is_secret(name) or value in ("None", "null", "True", "False", "true", "false"):
            return found[0]
        mark = value[0] if value[0] in "\"'" else ""
        return f"{quote}{name}{colon}{mark}{MASK}{mark}"


def hide(value: Any) -> Any:
    """What stands in the record for a credential."""
    return value if value is None or type(value) is bool else MASK


def _words(name: str) -> list[str]:
    """The words of a name, in small letters: `dbApi_KEY` is `db`, `api`, `key`."""
    return [word.lower() for word in _WORDS.findall(name)]


def _contains(words: list[str], sought: tuple[str, ...]) -> bool:
    return any(tuple(words[at : at + len(sought)]) == sought for at in range(len(words) - len(sought) + 1))


def _is_credential(words: list[str], index: int) -> bool:
    word = words[index]
    before = words[index - 1] if index else ""
    rest = words[index + 1 :]
    if word in _ALWAYS or word.endswith(_ENDINGS):
        return True
    if word in ("key", "keys"):
        return before in _KEYS
    if word in ("token", "auth") and all(after in _CARRIERS or after.isdigit() for after in rest):
        return before not in _VOCABULARY
    return False
