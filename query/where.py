"""Conditions as people write them, such as `used.lr > 0.01 and generated.acc >= 0.9`, made into a filter.

    status = 'ERROR' and not (hostname in ('n1', 'n2') or used["model.pt"] exists)
    started_at > 2h ago and duration > 1m30s and activity_id ~ 'train'

- What comes out is a filter, or a `UsageError` that points at the column; never anything else, whatever comes in.
- Values are data: a text is never read as an operator, a pattern or a path.
- A comparison holds only where there is a value: `used.lr != 0.1` does not find tasks without `used.lr`
  (`not used.lr = 0.1` does). Values of different types are neither equal nor in an order.
- A list matches by any of its items, as in MongoDB; `!=`, `!~` and `not in` by none of them.
- A key with dots or a `$`, written `used["model.pt"]`, is found in dicts, not in dicts inside lists.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from provd.common import values
from provd.common.errors import MissingExtra, UsageError
from provd.common.record import TIME_FIELDS
from provd.query.moments import SPAN, TIME, before, present, read_iso, span_seconds
from provd.query.pointing import pointed
from provd.store.literal_keys import AT

if TYPE_CHECKING:
    from lark import Lark, Token

#: Characters of a condition, and conditions inside one another: stores end at about a hundred levels.
_CHARS_MAX = 20_000
_DEPTH_MAX = 20

_INT64 = range(-(1 << 63), 1 << 63)

_GRAMMAR = rf"""
?start: either
?either: both (_OR both)*
?both: single (_AND single)*
?single: _NOT single -> negation
    | "(" either ")" -> group
    | path COMPARISON value -> compare
    | path CONTAINS value -> contains
    | path _IN values -> among
    | path _NOT _IN values -> not_among
    | path _EXISTS -> exists
    | path _MISSING -> missing
path: NAME ("." SEGMENT | "[" (KEY | PLACE) "]")*
values: "(" value ("," value)* ","? ")"
    | "[" value ("," value)* ","? "]"
value: TIME | SPAN | AGO | NOW | NUMBER | TEXT | WORD | BARE

_OR.2: /or(?![\w-])/i
_AND.2: /and(?![\w-])/i
_NOT.2: /not(?![\w-])/i
_IN.2: /in(?![\w-])/i
_EXISTS.2: /exists(?![\w-])/i
_MISSING.2: /missing(?![\w-])/i
COMPARISON: /==|=|!=|<>|<=|>=|<|>/
CONTAINS: /!?~/
NAME: /[^\W\d][\w-]*/
SEGMENT: /\w[\w-]*/
PLACE: /\d+/
KEY: /"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'/
TIME.6: /{TIME}/
AGO.5: /{SPAN}\s+ago\b/i
SPAN.4: /{SPAN}/i
NUMBER.3: /[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?(?![\w.])/i
NOW.2: /now(?![\w-])/i
WORD.2: /(?:true|false|null|nan|[+-]?inf)(?![\w-])/i
BARE: /[^\W\d][\w-]*/
TEXT: /"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'/
%ignore /\s+/
"""

#: A whole text, as `TEXT` and `KEY` have it.
_QUOTED = re.compile(r"""\"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'""")

_WORDS: dict[str, Any] = {
    "true": True, "false": False, "null": None, "nan": math.nan,
    "inf": math.inf, "+inf": math.inf, "-inf": -math.inf,
}  # fmt: skip
_OPERATORS = {">": "$gt", ">=": "$gte", "<": "$lt", "<=": "$lte"}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}

#: What stands where the grammar wants one of these, in words.
_WANTED = {
    "NAME": "a field", "SEGMENT": "a name", "COMPARISON": "a comparison", "TEXT": "a value", "KEY": "a quoted key",
    "LPAR": "`(`", "RPAR": "`)`", "RSQB": "`]`", "COMMA": "`,`", "_AND": "`and`", "_OR": "`or`", "$END": "its end",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Path:
    """Where a value stands; `token` is for pointing."""

    parts: tuple[str, ...]
    token: Any

    @property
    def is_literal(self) -> bool:
        """Whether a key of it means something else to the stores when it is written with dots."""
        return any(not part or "." in part or not values.is_plain_key(part) for part in self.parts)

    @property
    def is_time(self) -> bool:
        return len(self.parts) == 1 and self.parts[0] in TIME_FIELDS

    def holds(self, test: dict[str, Any]) -> dict[str, Any]:
        """The filter of a test of the value."""
        if self.is_literal:
            return {AT: [list(self.parts), test]}
        return {".".join(self.parts): test}


@dataclass(frozen=True, slots=True)
class _Value:
    value: Any
    token: Any


@dataclass(frozen=True, slots=True)
class _Condition:
    filter: dict[str, Any]
    depth: int = 1


class _Fault(Exception):
    """What is wrong, and where."""

    def __init__(self, complaint: str, offset: int) -> None:
        super().__init__(complaint)
        self.complaint = complaint
        self.offset = offset


def parse_where(text: str, *, now: datetime | None = None) -> dict[str, Any]:
    """A condition as a filter that both stores answer alike; raises `UsageError` that points at a mistake."""
    if len(text) > _CHARS_MAX:
        raise UsageError(f"the condition has {len(text):,} characters; at most {_CHARS_MAX:,} are read")
    if not text.strip():
        raise UsageError("the condition is empty; write one such as: used.lr > 0.01 and status = 'ERROR'")
    parser = _parser()
    from lark.exceptions import UnexpectedInput

    try:
        return _Builder(present(now)).build(parser.parse(text)).filter
    except _Fault as fault:
        raise UsageError(pointed("the condition", text, fault.offset, fault.complaint)) from None
    except UnexpectedInput as error:
        offset, complaint = _unexpected(text, error)
        raise UsageError(pointed("the condition", text, offset, complaint)) from None
    except RecursionError:
        raise UsageError("the condition is nested too deeply") from None


@lru_cache(maxsize=1)
def _parser() -> Lark:
    try:
        from lark import Lark
    except ImportError as error:
        raise MissingExtra("a condition (--where)", "query") from error
    return Lark(_GRAMMAR, parser="lalr", maybe_placeholders=False)


def _unexpected(text: str, error: Any) -> tuple[int, str]:
    """Where, and what is wanted there."""
    from lark.exceptions import UnexpectedToken

    token = getattr(error, "token", None)
    wanted = set(
        getattr(error, "accepts", None)
        or getattr(error, "expected", None)
        or getattr(error, "allowed", None)
        or ()
    )
    at_end = isinstance(error, UnexpectedToken) and token is not None and token.type == "$END"
    offset = len(text.rstrip()) if at_end else int(error.pos_in_stream or 0)
    if text[offset : offset + 1] in ("'", '"') and not _QUOTED.match(text, offset):
        return offset, "the text that begins here has no end"
    words = [word for name, word in _WANTED.items() if name in wanted]
    found = "it ends here" if at_end else f"{_excerpt(text, offset)} makes no sense here"
    if not words:
        return offset, found
    if len(words) > 1:
        words = [", ".join(words[:-1]) + " or " + words[-1]]
    return offset, f"{found}; expected {words[0]}"


def _excerpt(text: str, offset: int) -> str:
    word = re.match(r"\w[\w-]*|\S", text[offset:])
    return repr(word[0][:30]) if word else "this"


class _Builder:
    """Makes filters of the parse tree."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def build(self, tree: Any) -> _Condition:
        parts = tree.children
        if tree.data in ("either", "both"):
            return self._joined("$or" if tree.data == "either" else "$and", parts)
        if tree.data == "group":
            return self.build(parts[0])
        if tree.data == "negation":
            return _not(self.build(parts[0]))
        make: Callable[[_Path, Sequence[Any]], dict[str, Any]] = getattr(self, f"_{tree.data}")
        return _Condition(make(_path(parts[0].children), parts[1:]))

    def _joined(self, operator: str, parts: Sequence[Any]) -> _Condition:
        built = [self.build(part) for part in parts]
        depth = 1 + max(one.depth for one in built)
        return _shallow(_Condition({operator: [one.filter for one in built]}, depth))

    def _compare(self, path: _Path, rest: Sequence[Any]) -> dict[str, Any]:
        operator, value = str(rest[0]), self._value(rest[1].children[0], path)
        if operator in ("=", "=="):
            return path.holds(_equal(value.value))
        if operator in ("!=", "<>"):
            return _other(path, [_equal(value.value)])
        return path.holds({_OPERATORS[operator]: _ordered(value)})

    def _contains(self, path: _Path, rest: Sequence[Any]) -> dict[str, Any]:
        value = self._value(rest[1].children[0], None)
        if type(value.value) is not str:
            raise _Fault("`~` looks for text in text: write it in quotes", value.token.start_pos)
        if not values.is_unicode(value.value) or "\0" in value.value:
            raise _Fault("this text cannot be looked for: it is not Unicode", value.token.start_pos)
        test = {"$regex": re.escape(value.value)}
        return path.holds(test) if rest[0] == "~" else _other(path, [test])

    def _among(self, path: _Path, rest: Sequence[Any]) -> dict[str, Any]:
        tests = self._tests(path, rest[0].children)
        return path.holds(tests[0]) if len(tests) == 1 else {"$or": [path.holds(test) for test in tests]}

    def _not_among(self, path: _Path, rest: Sequence[Any]) -> dict[str, Any]:
        return _other(path, self._tests(path, rest[0].children))

    def _tests(self, path: _Path, items: Sequence[Any]) -> list[dict[str, Any]]:
        found = [self._value(item.children[0], path).value for item in items]
        named = [value for value in found if value is not None]
        return [*([{"$in": named}] if named else []), *([_equal(None)] if len(named) < len(found) else [])]

    def _exists(self, path: _Path, _rest: Sequence[Any]) -> dict[str, Any]:
        return path.holds({"$exists": True})

    def _missing(self, path: _Path, _rest: Sequence[Any]) -> dict[str, Any]:
        return path.holds({"$exists": False})

    def _value(self, token: Token, path: _Path | None) -> _Value:
        value = self._read(token)
        if path is not None and path.is_time and value is not None and not isinstance(value, datetime):
            value = self._as_time(token, value)
        return _Value(value, token)

    def _as_time(self, token: Token, value: Any) -> datetime:
        if type(value) is str:
            found: datetime = _at(token, lambda: read_iso(value, "the time"))
            return found
        written = f"`{token} ago`" if token.type == "SPAN" else "one such as 2026-11-20T14:00Z or 2h ago"
        raise _Fault(f"this field is a time; write {written}", token.start_pos or 0)

    def _read(self, token: Token) -> Any:
        text = str(token)
        if token.type == "TEXT":
            return _unquoted(token)
        if token.type == "NUMBER":
            return _number(token)
        if token.type == "TIME":
            return _at(token, lambda: read_iso(text, "the time"))
        if token.type == "SPAN":
            return _finite(span_seconds(text), token)
        if token.type == "AGO":
            ago = text[: -len("ago")].strip()
            return _at(token, lambda: before(_finite(span_seconds(ago), token), "the time", self._now))
        if token.type == "NOW":
            return self._now
        if token.type == "WORD":
            return _WORDS[text.lower()]
        raise _Fault(f"text needs quotes: '{text}'", token.start_pos or 0)


def _not(one: _Condition) -> _Condition:
    return _shallow(_Condition({"$nor": [one.filter]}, one.depth + 1))


def _shallow(one: _Condition) -> _Condition:
    if one.depth > _DEPTH_MAX:
        raise UsageError("the condition is nested too deeply")
    return one


def _equal(value: Any) -> dict[str, Any]:
    """Null is asked for by its type: equality would find what is not there, too."""
    return {"$type": "null"} if value is None else {"$eq": value}


def _other(path: _Path, tests: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """There is a value, and none of the tests holds."""
    return {"$and": [path.holds({"$exists": True}), {"$nor": [path.holds(test) for test in tests]}]}


def _ordered(value: _Value) -> Any:
    operand = value.value
    if operand is None or type(operand) is bool or operand != operand:  # noqa: PLR0124 - NaN
        raise _Fault(f"{value.token} has no order; use = or !=", value.token.start_pos)
    if type(operand) is int and operand not in _INT64:
        return _at(value.token, lambda: float(operand))
    if type(operand) is str and not values.is_unicode(operand):
        raise _Fault("this text has no order: it is not Unicode", value.token.start_pos)
    return operand


def _path(parts: Sequence[Token]) -> _Path:
    names = []
    for part in parts:
        name = _unquoted(part) if part.type == "KEY" else str(part)
        if part.type == "KEY" and not values.is_unicode(name):
            raise _Fault("a key that is not Unicode cannot be asked for", part.start_pos or 0)
        names.append(name)
    path = _Path(tuple(names), parts[0])
    if len(names) > _DEPTH_MAX:
        raise _Fault("this path is too long", parts[0].start_pos or 0)
    for part in parts:
        if path.is_literal and part.type == "PLACE":
            complaint = "a place in a list cannot follow, or lead to, a key that is empty, has dots or begins with $ or ~"
            raise _Fault(complaint, part.start_pos or 0)
    return path


def _unquoted(token: Token) -> str:
    def replaced(found: re.Match[str]) -> str:
        char = found[1]
        if char in ("\\", "'", '"'):
            return char
        if char in _ESCAPES:
            return _ESCAPES[char]
        if char[0] == "u" and len(char) == 5:
            return chr(int(char[1:], 16))
        raise _Fault(
            f"\\{char[0]} in a text; a backslash is written \\\\", (token.start_pos or 0) + 1 + found.start()
        )

    text = re.sub(r"\\(u[0-9a-fA-F]{4}|.)", replaced, str(token)[1:-1])
    try:  # a pair of \ud83d\ude00
        return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        return text


def _number(token: Token) -> Any:
    text = str(token)
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return _finite(float(text), token)
    except ValueError:
        raise _Fault("this number is too long", token.start_pos or 0) from None


def _finite(number: float, token: Token) -> float:
    if math.isinf(number):
        raise _Fault("this number is too large", token.start_pos or 0)
    return number


def _at(token: Token, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except UsageError as error:
        raise _Fault(str(error), token.start_pos or 0) from None
    except OverflowError:
        raise _Fault("this number is too large", token.start_pos or 0) from None
