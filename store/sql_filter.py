"""The part of a filter that SQL can answer: conditions on the columns that the embedded store keeps.

- What SQL finds always holds everything that matches; `exact` says that it holds nothing else.
- A column is NULL where the document has no such field, or null in it: MongoDB tells the two apart as little.
- A condition is handed to SQL only where the operand has the column's type, so that MongoDB's rule of comparing
  within a type holds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from provd.common import clock
from provd.common.record import TIME_FIELDS

_NUMBERS = frozenset({"seq", "first_seq", "last_seq"})
_COMPARISONS = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}

#: Operands in one `$in`; SQLite allows 999 to 250,000 in a statement, by version.
_MAX_OPERANDS = 500


@dataclass(slots=True)
class SqlFilter:
    """A WHERE clause (without the word; empty for everything), its parameters, and whether it says all."""

    clauses: list[str] = field(default_factory=list)
    parameters: list[Any] = field(default_factory=list)
    exact: bool = True

    @property
    def where(self) -> str:
        """The clause with the word, or nothing."""
        return " WHERE " + " AND ".join(self.clauses) if self.clauses else ""


def is_time(column: str) -> bool:
    """Whether a column holds UTC milliseconds."""
    return column in TIME_FIELDS


def column_value(value: Any) -> Any:
    """The form of a portable value in its column."""
    if isinstance(value, datetime):
        return clock.from_datetime(value)
    if isinstance(value, dict):  # text with lone surrogates
        return value.get("~str")
    if isinstance(value, list):
        return 1
    return value


def from_column(column: str, value: Any) -> Any:
    """Undo `column_value`."""
    if isinstance(value, bytes):
        return {"~str": value}
    return clock.to_datetime(value) if is_time(column) else value


def sql_filter(query: Mapping[str, Any], columns: frozenset[str], lists: Collection[str] = ()) -> SqlFilter:
    """Split off what SQL can answer of a prepared filter. Of `lists` it knows only whether there is one."""
    found = SqlFilter()
    for column in lists:
        if _wants_some(query.get(column)):
            found.clauses.append(f"{column} IS NOT NULL")
    _collect(query, columns, found)
    return found


def _collect(query: Mapping[str, Any], columns: frozenset[str], found: SqlFilter) -> None:
    for key, condition in query.items():
        if key == "$comment":
            continue
        if key == "$and" and isinstance(condition, list):
            for part in condition:
                if isinstance(part, Mapping):
                    _collect(part, columns, found)
                else:
                    found.exact = False
        elif key not in columns:
            found.exact = False
        elif isinstance(condition, Mapping):
            for operator, operand in condition.items():
                _add(key, operator, operand, found)
        else:
            _add(key, "$eq", condition, found)


def _wants_some(condition: Any) -> bool:
    """Whether only a document that has the field can meet the condition."""
    if isinstance(condition, str):
        return True
    if not isinstance(condition, Mapping):
        return False
    several = condition.get("$in")
    return isinstance(several, list) and all(isinstance(item, str) for item in several)


def _add(column: str, operator: str, operand: Any, found: SqlFilter) -> None:
    if operator == "$in" and isinstance(operand, list) and len(operand) <= _MAX_OPERANDS:
        stated = [item for item in operand if item is not None]
        if all(_fits(column, item) for item in stated):
            clause = f"{column} IN ({', '.join('?' * len(stated))})"
            found.clauses.append(clause if len(stated) == len(operand) else f"({clause} OR {column} IS NULL)")
            found.parameters.extend(column_value(item) for item in stated)
            return
    elif operator == "$eq" and operand is None:
        found.clauses.append(f"{column} IS NULL")
        return
    elif operator == "$eq" and _fits(column, operand):
        found.clauses.append(f"{column} = ?")
        found.parameters.append(column_value(operand))
        return
    elif operator in _COMPARISONS and _fits(column, operand):
        found.clauses.append(f"{column} {_COMPARISONS[operator]} ?")
        found.parameters.append(column_value(operand))
        if isinstance(operand, str):
            found.clauses.append(f"typeof({column}) = 'text'")
        return
    found.exact = False


def _fits(column: str, operand: Any) -> bool:
    if is_time(column):
        return isinstance(operand, datetime)
    if column in _NUMBERS:
        return type(operand) is int
    return isinstance(operand, str)
