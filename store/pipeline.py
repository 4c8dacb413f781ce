"""MongoDB aggregation pipelines evaluated in Python, for the embedded store.

Supported stages: `$match $sort $limit $skip $count` (ours), `$group $unwind $project $addFields $set $replaceRoot`
(mongomock's). Supported accumulators and expressions: those in `EXPRESSIONS`. Anything else raises
`UnsupportedQuery` that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from provd.common.errors import MissingExtra, UnsupportedQuery
from provd.common.record import Record
from provd.store.filters import check_sort
from provd.store.matcher import matcher, outside
from provd.store.ordering import sort_documents

_DELEGATED = frozenset({"$group", "$unwind", "$project", "$addFields", "$set", "$replaceRoot"})
STAGES = frozenset({"$match", "$sort", "$limit", "$skip", "$count"}) | _DELEGATED

#: Accumulators of `$group`, and expressions, that give what MongoDB gives.
EXPRESSIONS = frozenset(
    {"$sum", "$avg", "$min", "$max", "$first", "$last", "$push", "$addToSet"}
    | {"$cond", "$ifNull", "$and", "$or", "$not", "$eq", "$ne", "$gt", "$gte", "$lt", "$lte"}
    | {"$add", "$subtract", "$multiply", "$divide", "$literal"}
)


def check_pipeline(pipeline: Sequence[Mapping[str, Any]]) -> list[tuple[str, Any]]:
    """The stages of a prepared pipeline; raises `UnsupportedQuery` before anything is read."""
    if not isinstance(pipeline, list):
        raise UnsupportedQuery("a pipeline is a list of stages")
    stages = []
    for stage in pipeline:
        if not isinstance(stage, Mapping) or len(stage) != 1:
            raise UnsupportedQuery("a stage is an object with one operator")
        ((name, body),) = stage.items()
        if name not in STAGES:
            raise outside(name)
        _check_stage(name, body)
        stages.append((name, body))
    return stages


def _check_stage(name: str, body: Any) -> None:
    if name == "$match":
        matcher(body)
    elif name == "$sort":
        if not isinstance(body, Mapping) or not body:
            raise UnsupportedQuery("$sort needs fields and directions")
        check_sort(list(body.items()))
    elif name in ("$limit", "$skip"):
        if type(body) is not int or body < (1 if name == "$limit" else 0):
            raise UnsupportedQuery(f"{name} needs a whole number, not {body!r}")
    elif name == "$count":
        if not isinstance(body, str) or not body or body.startswith("$") or "." in body:
            raise UnsupportedQuery("$count needs the name of a field")
    else:
        _check_expression(body)


def _check_expression(body: Any) -> None:
    if isinstance(body, Mapping):
        for key, item in body.items():
            if key.startswith("$") and key not in EXPRESSIONS:
                raise outside(key)
            if key != "$literal":
                _check_expression(item)
    elif isinstance(body, list):
        for item in body:
            _check_expression(item)
    elif isinstance(body, str) and body.startswith("$$") and not body.startswith(("$$ROOT", "$$CURRENT")):
        raise outside(body)


def paths_of(stage: tuple[str, Any]) -> frozenset[str] | None:
    """The paths that a `$group` or `$count` reads, or None where it may read all of a document."""
    name, body = stage
    if name == "$count":
        return frozenset()
    if name != "$group":
        return None
    found: set[str] = set()
    return frozenset(found) if _collect_paths(body, found) else None


def _collect_paths(body: Any, found: set[str]) -> bool:
    if isinstance(body, str) and body.startswith("$"):
        found.add(body[1:])
        return not body.startswith("$$")
    if isinstance(body, Mapping):
        return all(key != "$literal" and _collect_paths(item, found) for key, item in body.items())
    return not isinstance(body, list) or all(_collect_paths(item, found) for item in body)


def run_pipeline(documents: Iterable[Record], stages: Sequence[tuple[str, Any]]) -> Iterator[Record]:
    """Send documents, in portable form, through checked stages."""
    flow: Iterator[Record] = iter(documents)
    for name, body in stages:
        if name == "$match":
            flow = filter(matcher(body), flow)
        elif name == "$sort":
            flow = iter(sort_documents(flow, list(body.items())))
        elif name in ("$limit", "$skip"):
            flow = islice(flow, body) if name == "$limit" else islice(flow, body, None)
        elif name == "$count":
            total = sum(1 for _ in flow)
            flow = iter([{body: total}] if total else [])
        else:
            flow = _delegate(list(flow), name, body)
    return flow


def _delegate(documents: list[Record], name: str, body: Any) -> Iterator[Record]:
    process = load_engine()
    from mongomock import OperationFailure

    try:
        return iter(list(process(documents, None, [{name: body}], None)))
    except (OperationFailure, NotImplementedError, TypeError, ValueError, ArithmeticError) as error:
        raise UnsupportedQuery(f"{name}: {error}") from error


def load_engine() -> Callable[..., Iterable[Record]]:
    """Import mongomock's pipeline; raises `MissingExtra`."""
    try:
        from mongomock.aggregate import process_pipeline
    except ImportError as error:
        raise MissingExtra("aggregation in the embedded store", "embedded") from error
    engine: Callable[..., Iterable[Record]] = process_pipeline
    return engine
