"""Conditions (`--where`): both stores find what a plain reading of the condition in Python finds."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provd.common.errors import UsageError
from provd.query.where import parse_where
from provd.store.filters import prepare
from provd.store.interface import Store
from provd.store.matcher import matcher
from provd.store.open import open_store
from tests.contract.messages import START_MS, task

_MOMENT = datetime.fromtimestamp(START_MS // 1000, timezone.utc)

_VALUES: list[Any] = [
    None, 0, 1, 1.0, 2, -5, 2.5, 1e-3, True, False, "", "a", "b", "A b.c*d", "it's", 'say "x"', "back\\slash", "é漢字",
    "two\nlines", [], [1, 2], ["a", 3], [None], [[1]], {"k": 1}, {}, {"k": {"z": "a"}}, math.nan, math.inf, 2**40, 2**70,
    _MOMENT, _MOMENT + timedelta(hours=1), b"by",
]  # fmt: skip

_USED: list[dict[str, Any]] = [
    {},
    *({"x": value} for value in _VALUES),
    *({"m.pt": value} for value in _VALUES),
    *({"x": one, "y": two} for one, two in zip(_VALUES, reversed(_VALUES))),
    {"x": {"a.b": 1, "c": {"": 2}}},
    {"x": {"a": {"b": 1}, "c": {"": "a"}}},
    {"x": [{"k": 1}, {"k": "a"}]},
    {"x": [{"a.b": 1}]},
    {"m.pt": {"k.1": 2, "k": 1}},
    {"m": {"pt": 1}},
    {"in": 1, "not": 2, "or-else": "a"},
    *({"$lr": value, "x": value} for value in _VALUES),
    {"x": {"~k": {"y": 1, "$z": "a"}, "c": {"": 2}, 7: 1}, "y": 1},
    {"$lr": {"$lr": 1}, "~map": 2},
]

RECORDS = [
    task(number, status=["FINISHED", "ERROR", "CANCELLED"][number % 3], duration=number / 4, used=used, started_at=START_MS + 1000 * number)
    for number, used in enumerate(_USED, start=1)
]  # fmt: skip


@pytest.fixture(scope="module")
def asked(mongo_server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Both stores with the same records, only read from here on."""
    database = f"provd_where_{uuid.uuid4().hex[:12]}"
    stores = (
        open_store(f"{mongo_server_url.rstrip('/')}/{database}"),
        open_store(f"sqlite:///{tmp_path_factory.mktemp('where') / 'provd.db'}"),
    )
    for store in stores:
        store.migrate()
        assert not store.write(RECORDS, received_at=START_MS).refused
    yield stores
    stores[0]._client.drop_database(database)  # type: ignore[attr-defined]
    for store in stores:
        store.close()


def found(store: Store, text: str) -> set[str]:
    """The tasks that a store finds."""
    return {record["task_id"] for record in store.find("tasks", parse_where(text), fields=["task_id"])}


# --- a plain reading -------------------------------------------------------------------------------------------

_ABSENT = object()


def at(record: Any, path: tuple[str, ...]) -> Any:
    """The value at a path through dicts."""
    for part in path:
        if not isinstance(record, dict) or part not in record:
            return _ABSENT
        record = record[part]
    return record


def items(value: Any) -> list[Any]:
    """What a comparison looks at."""
    if value is _ABSENT:
        return []
    return [value, *value] if isinstance(value, list) else [value]


def same(one: Any, other: Any) -> bool:
    """Equal, within a type."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other):
        return True
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return one == other
    return type(one) is type(other) and one == other


def ordered(one: Any, other: Any, test: Callable[[Any, Any], bool]) -> bool:
    """In an order, within a type."""
    numbers = (int, float)
    if isinstance(one, bool):
        return False
    if isinstance(one, numbers) and isinstance(other, numbers):
        return abs(one) < 2**63 and test(one, other) if isinstance(one, int) else test(one, other)
    return type(one) is type(other) and isinstance(other, (str, datetime)) and test(one, other)


TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda one, other: ordered(one, other, lambda a, b: a < b),
    "<=": lambda one, other: ordered(one, other, lambda a, b: a <= b),
    ">": lambda one, other: ordered(one, other, lambda a, b: a > b),
    ">=": lambda one, other: ordered(one, other, lambda a, b: a >= b),
    "=": same,
    "==": same,
    "~": lambda one, other: isinstance(one, str) and other in one,
}
_NEGATED = {"!=": "=", "<>": "=", "!~": "~"}


def holds(path: tuple[str, ...], operator: str, operand: Any) -> Callable[[Any], bool]:
    """The plain reading of a comparison."""

    def test(record: Any) -> bool:
        value = at(record, path)
        if operator in _NEGATED:
            positive = TESTS[_NEGATED[operator]]
            return value is not _ABSENT and not any(positive(item, operand) for item in items(value))
        return any(TESTS[operator](item, operand) for item in items(value))

    return test


def quoted(text: str, mark: str) -> str:
    """A text as a condition has it."""
    for plain, escaped in (("\\", "\\\\"), (mark, "\\" + mark), ("\n", "\\n")):
        text = text.replace(plain, escaped)
    return mark + text + mark


def written(value: Any, mark: str = "'") -> str:
    """A value as a condition has it."""
    if isinstance(value, str):
        return quoted(value, mark)
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)


# --- expressions -----------------------------------------------------------------------------------------------

_PATHS: list[tuple[str, tuple[str, ...]]] = [
    ("used.x", ("used", "x")),
    ('used["x"]', ("used", "x")),
    ('used["m.pt"]', ("used", "m.pt")),
    ("used['m.pt'].k", ("used", "m.pt", "k")),
    ("used['m.pt']['k.1']", ("used", "m.pt", "k.1")),
    ("used.x['a.b']", ("used", "x", "a.b")),
    ("used.x.c['']", ("used", "x", "c", "")),
    ("used . y", ("used", "y")),
    ("used.m.pt", ("used", "m", "pt")),
    ("used.in", ("used", "in")),
    ("used.or-else", ("used", "or-else")),
    ("used.not", ("used", "not")),
    ("used['$lr']", ("used", "$lr")),
    ("used['$lr']['$lr']", ("used", "$lr", "$lr")),
    ("used.x['~k'].y", ("used", "x", "~k", "y")),
    ("used.x['~k']['$z']", ("used", "x", "~k", "$z")),
    ("used['~map']", ("used", "~map")),
    ("status", ("status",)),
    ("duration", ("duration",)),
    ("nothing", ("nothing",)),
]
_ORDERED = [0, 1, 1.0, 2.5, -5, 1e-3, math.inf, -math.inf, 2**40, 2**70, "", "a", "b", "é", _MOMENT]
_ANY = [
    *_ORDERED,
    None,
    True,
    False,
    math.nan,
    "A b.c*d",
    "it's",
    'say "x"',
    "back\\slash",
    "two\nlines",
    "ERROR",
]
_TEXTS = ["", "a", "b.c", "*", "é", "'", '"', "\\", "\n", "ERR", "(", "$", "^"]

Expression = tuple[str, Callable[[Any], bool]]


@st.composite
def comparisons(draw: Any) -> Expression:
    text, path = draw(st.sampled_from(_PATHS))
    form = draw(st.sampled_from(["order", "equal", "contains", "in", "exists"]))
    mark = draw(st.sampled_from("'\""))
    if form == "order":
        operator, operand = draw(st.sampled_from(["<", "<=", ">", ">="])), draw(st.sampled_from(_ORDERED))
        return f"{text} {operator} {written(operand, mark)}", holds(path, operator, operand)
    if form == "equal":
        operator, operand = draw(st.sampled_from(["=", "==", "!=", "<>"])), draw(st.sampled_from(_ANY))
        return f"{text}{operator}{written(operand, mark)}", holds(path, operator, operand)
    if form == "contains":
        operator, operand = draw(st.sampled_from(["~", "!~"])), draw(st.sampled_from(_TEXTS))
        return f"{text} {operator} {written(operand, mark)}", holds(path, operator, operand)
    if form == "in":
        operands = draw(st.lists(st.sampled_from(_ANY), min_size=1, max_size=3))
        listed = ", ".join(written(operand, mark) for operand in operands)
        if draw(st.booleans()):
            tests = [holds(path, "=", operand) for operand in operands]
            return f"{text} IN ({listed})", lambda record: any(test(record) for test in tests)
        tests = [holds(path, "!=", operand) for operand in operands]
        return f"{text} not in [{listed}]", lambda record: all(test(record) for test in tests)
    if draw(st.booleans()):
        return f"{text} exists", lambda record: at(record, path) is not _ABSENT
    return f"{text} missing", lambda record: at(record, path) is _ABSENT


def _joined(word: str, parts: list[Expression]) -> Expression:
    join = all if word.strip().lower() == "and" else any
    text = word.join(f"({part})" for part, _ in parts)
    return text, lambda record: join(test(record) for _, test in parts)


EXPRESSIONS: st.SearchStrategy[Expression] = st.recursive(
    comparisons(),
    lambda inner: st.one_of(
        st.builds(lambda one: (f"not ({one[0]})", lambda record: not one[1](record)), inner),
        st.builds(
            _joined, st.sampled_from([" and ", " OR ", " or "]), st.lists(inner, min_size=2, max_size=3)
        ),
    ),
    max_leaves=5,
)


@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
@given(expression=EXPRESSIONS)
def test_both_stores_find_what_a_plain_reading_finds(
    asked: tuple[Store, Store], expression: Expression
) -> None:
    text, test = expression
    mongo, embedded = asked
    plain = {message.record["task_id"] for message in RECORDS if test(message.record)}

    assert found(embedded, text) == found(mongo, text), text
    assert found(embedded, text) == plain, text


@pytest.mark.parametrize("text", [path for path, _ in _PATHS])
def test_every_comparison_of_every_path_is_alike(asked: tuple[Store, Store], text: str) -> None:
    mongo, embedded = asked
    path = dict(_PATHS)[text]

    for operator in ("<", "<=", ">", ">="):
        for operand in _ORDERED:
            condition = f"{text} {operator} {written(operand)}"
            plain = {m.record["task_id"] for m in RECORDS if holds(path, operator, operand)(m.record)}
            assert found(embedded, condition) == found(mongo, condition) == plain, condition


def test_a_list_matches_by_any_item_and_its_documents_by_their_fields(asked: tuple[Store, Store]) -> None:
    for store in asked:
        assert found(store, "used.x.k = 'a' and used.x.k = 1") == found(store, "used.x[1].k = 'a'") != set()
        assert found(store, "used.x[0] = 1 and used.x[1] = 2")
        assert not found(store, "used.x['a.b'] = 1 and used.x[0] exists")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("started_at >= 2023-11-14T22:13:25Z and started_at < '2023-11-14T22:13:30Z'", 5),
        ("started_at > 2023-11-14T23:13:25+01:00 and started_at <= 2023-11-14T22:13:30.000Z", 5),
        ("duration >= 5s and duration < 10s", 20),
        ("duration > 500ms and duration <= 1s", 2),
        ("started_at < 1h30m ago", 0),
        ("started_at < now", 0),
    ],
)
def test_times_and_spans_are_understood(asked: tuple[Store, Store], text: str, count: int) -> None:
    now = _MOMENT
    for store in asked:
        assert store.count("tasks", parse_where(text, now=now)) == count


# --- nothing but a filter or an error --------------------------------------------------------------------------

_PIECES = st.sampled_from(
    ["used.lr", "used", ".", "[", "]", "(", ")", "and", "or", "not", "in", "=", "!=", "<", ">=", "~", "exists", "missing",
     "'a'", '"', "'", "\\", "1", "-2.5e3", "1e999", "9" * 30, "2h", "2h ago", "ago", "now", "null", "true", "nan", "$where",
     '["$x"]', '["a.b"]', "[0]", "2026-11-20", "2026-13-40T99:99", "0001-01-01", "9999-12-31T23:59", ",", "é", "\n", "\0", "'\\udcff'",
     "99999999999d ago", "started_at", "status", " "]
)  # fmt: skip


@settings(max_examples=800, deadline=None)
@given(
    text=st.one_of(
        st.text(max_size=60),
        st.lists(_PIECES, max_size=12).map(" ".join),
        st.lists(_PIECES, max_size=8).map("".join),
    )
)
def test_any_text_gives_a_filter_that_stores_take_or_an_error(text: str) -> None:
    try:
        wanted = parse_where(text)
    except UsageError:
        return
    matcher(prepare(wanted))({})


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
@given(text=st.lists(_PIECES, min_size=3, max_size=9).map(" ".join))
def test_what_is_taken_both_stores_answer_alike(asked: tuple[Store, Store], text: str) -> None:
    try:
        parse_where(text)
    except UsageError:
        return
    assert found(asked[0], text) == found(asked[1], text)


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("used.lr >", 10, "it ends here; expected a value"),
        ("used.lr > > 1", 11, "'>' makes no sense here; expected a value"),
        ("used.lr 0.1", 9, "a comparison"),
        ("status = ERROR", 10, "text needs quotes: 'ERROR'"),
        ("used.lr > 1 und used.x = 2", 13, "`and`"),
        ("(used.lr > 1", 13, "`)`"),
        ("used. > 1", 7, "a name"),
        ("used[lr] > 1", 6, "a quoted key"),
        ('used["\\ud800"] = 1', 6, "not Unicode"),
        ("used.lr > null", 11, "null has no order"),
        ("used.lr > true", 11, "true has no order"),
        ("used.lr = 1e999", 11, "too large"),
        ("used.name ~ 5", 13, "in quotes"),
        ("started_at > 5", 14, "is a time"),
        ("started_at > 5m", 14, "`5m ago`"),
        ("started_at > 2026-02-30", 14, "is not a time"),
        ("used.x = 'a\\qb'", 12, "a backslash is written"),
        ("used.x = 'open", 10, "the text that begins here has no end"),
        ("used['open > 1", 6, "the text that begins here has no end"),
        ("used.x 'whole'", 8, "expected a comparison"),
        ("$where = 1", 1, "a field"),
        ("x", 2, "a comparison"),
        ("status = 'a'\n  and oops", 11, "line 2, column 11"),
    ],
)
def test_a_mistake_is_pointed_at(text: str, column: int, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_where(text)

    message = str(caught.value)
    assert words in message
    assert f"column {column}:" in message
    *_, excerpt, caret = message.splitlines()
    assert caret.strip() == "^"
    assert len(caret) <= len(excerpt) + 1


@pytest.mark.parametrize(
    "text", ["", "   ", "not " * 50 + "a = 1", "(" * 5000 + "a = 1" + ")" * 5000, "a = 1 and " * 3000]
)
def test_what_is_empty_or_huge_is_refused_in_words(text: str) -> None:
    with pytest.raises(UsageError):
        parse_where(text)


def test_many_parentheses_around_one_condition_change_nothing() -> None:
    assert parse_where("(" * 50 + "a = 1" + ")" * 50) == {"a": {"$eq": 1}}
