"""Filters, sort orders and field lists as they are written on a command line.

A filter is a MongoDB filter in the tagged JSON of `provd.common.values`, such as
`{"status": "ERROR", "started_at": {"$gt": {"$date": "2026-11-20T00:00:00Z"}}}`.
"""

from __future__ import annotations

import difflib
import json
from typing import Any

from provd.common import names, values
from provd.common.errors import UsageError
from provd.query.pointing import pointed


def parse_filter(text: str) -> dict[str, Any]:
    """A filter document; raises `UsageError` that points at the place where it stops making sense."""
    document = _parsed(text, "the filter")
    if not isinstance(document, dict):
        raise UsageError(f'the filter {_shortened(text)} is not a JSON object; write {{"field": value}}')
    return document


def parse_pipeline(text: str) -> list[Any]:
    """An aggregation's stages; raises `UsageError` that points at the place where it stops making sense."""
    stages = _parsed(text, "the pipeline")
    if not isinstance(stages, list):
        raise UsageError(f'the pipeline {_shortened(text)} is not a JSON list; write [{{"$match": {{}}}}, …]')
    return stages


def _parsed(text: str, what: str) -> Any:
    try:
        return values.from_json(text)
    except json.JSONDecodeError as error:
        complaint = f"{error.msg[:1].lower()}{error.msg[1:]}"
        raise UsageError(pointed(f"{what} is not JSON", text, error.pos, complaint)) from None
    except ValueError as error:
        raise UsageError(f"{what} {_shortened(text)}: {error}") from None


def parse_sort(text: str) -> list[tuple[str, int]]:
    """`-generated.acc,started_at` as fields and directions; a minus means falling."""
    order = []
    for part in text.split(","):
        name = part.strip()
        field = name.lstrip("+-")
        if not field or len(name) - len(field) > 1:
            raise UsageError(
                f"the sort order {text!r}: write fields with commas between, a minus for falling order"
            )
        order.append((field, -1 if name.startswith("-") else 1))
    return order


def parse_fields(text: str) -> list[str]:
    """`a,b.c` as fields."""
    fields = [part.strip() for part in text.split(",")]
    if not all(fields):
        raise UsageError(f"the fields {text!r}: write their names with commas between")
    return fields


def check_collection(name: str) -> str:
    """A collection that may be asked; raises `UsageError` that names the known ones."""
    if name in names.COLLECTIONS:
        return name
    near = difflib.get_close_matches(name, names.COLLECTIONS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names.COLLECTIONS)}"
    raise UsageError(f"no collection {name!r}; {hint}")


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
