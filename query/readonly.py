"""What a query may say: stages and operators by allowlist, so that a query reads and does nothing else.

- Every document of a query is checked, wherever it stands: inside `$expr`, `$facet`, `$lookup`, `$unionWith`, an
  accumulator. Only below `$literal` is everything a value.
- What is not listed is refused, with the reason where there is one; a later server's new operators, too.
- A store may answer less: the embedded one names the operator that it does not know.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from provd.common import names
from provd.common.errors import UnsupportedQuery

#: Containers inside one another; servers take a hundred.
_DEPTH_MAX = 90


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


QUERY_OPERATORS = _words(
    "$eq $ne $gt $gte $lt $lte $in $nin $and $or $nor $not $exists $type $expr $mod $regex $options $all $elemMatch"
    " $size $comment $bitsAllClear $bitsAllSet $bitsAnyClear $bitsAnySet $at"
)

STAGES = _words(
    "$match $project $addFields $set $unset $group $sort $limit $skip $count $unwind $replaceRoot $replaceWith"
    " $sortByCount $bucket $bucketAuto $facet $lookup $graphLookup $unionWith $sample $redact $setWindowFields"
    " $densify $fill"
)

EXPRESSIONS = _words(
    # numbers
    "$abs $add $ceil $divide $exp $floor $ln $log $log10 $mod $multiply $pow $round $sqrt $subtract $trunc"
    " $acos $acosh $asin $asinh $atan $atan2 $atanh $cos $cosh $degreesToRadians $radiansToDegrees $sin $sinh $tan"
    " $tanh $bitAnd $bitNot $bitOr $bitXor"
    # lists and sets
    " $arrayElemAt $arrayToObject $concatArrays $filter $first $firstN $in $indexOfArray $isArray $last $lastN $map"
    " $maxN $minN $objectToArray $range $reduce $reverseArray $size $slice $sortArray $zip"
    " $allElementsTrue $anyElementTrue $setDifference $setEquals $setIntersection $setIsSubset $setUnion"
    # truth, order, choice
    " $and $not $or $cmp $eq $gt $gte $lt $lte $ne $cond $ifNull $switch"
    # times
    " $dateAdd $dateDiff $dateFromParts $dateFromString $dateSubtract $dateToParts $dateToString $dateTrunc"
    " $dayOfMonth $dayOfWeek $dayOfYear $hour $isoDayOfWeek $isoWeek $isoWeekYear $millisecond $minute $month"
    " $second $week $year $toDate $tsIncrement $tsSecond"
    # text
    " $concat $indexOfBytes $indexOfCP $ltrim $regexFind $regexFindAll $regexMatch $replaceAll $replaceOne $rtrim"
    " $split $strLenBytes $strLenCP $strcasecmp $substr $substrBytes $substrCP $toLower $toUpper $trim"
    # types, documents, variables
    " $convert $isNumber $toBool $toDecimal $toDouble $toInt $toLong $toObjectId $toString $type $bsonSize $binarySize"
    " $getField $setField $unsetField $mergeObjects $let $literal $meta $rand $sampleRate"
    # accumulators and windows
    " $addToSet $avg $bottom $bottomN $count $max $median $min $percentile $push $stdDevPop $stdDevSamp $sum $top $topN"
    " $covariancePop $covarianceSamp $denseRank $derivative $documentNumber $expMovingAvg $integral $linearFill $locf"
    " $rank $shift"
)

_RUNS_CODE = "it runs code in the server"
_WRITES = "it writes, and queries only read"
_SERVER = "it tells of the server and of other people's work, not of records"
REASONS = {
    "$where": _RUNS_CODE, "$function": _RUNS_CODE, "$accumulator": _RUNS_CODE,
    "$out": _WRITES, "$merge": _WRITES,
    "$currentOp": _SERVER, "$listSessions": _SERVER, "$listLocalSessions": _SERVER, "$collStats": _SERVER,
    "$indexStats": _SERVER, "$planCacheStats": _SERVER, "$changeStream": "it never ends: see `provd tasks --follow`",
    "$listSampledQueries": _SERVER, "$shardedDataDistribution": _SERVER, "$querySettings": _SERVER,
    "$queryStats": _SERVER, "$listSearchIndexes": _SERVER, "$listClusterCatalog": _SERVER,
    "$documents": "it asks no collection", "$search": "it needs a search index", "$text": "it needs a text index",
    "$near": "records have no places", "$geoNear": "records have no places",
}  # fmt: skip

#: The server's variables that a query may read; users' begin with a small letter.
VARIABLES = frozenset({"ROOT", "CURRENT", "NOW", "REMOVE", "DESCEND", "PRUNE", "KEEP"})


def check_filter(filter: Any) -> None:
    """Raise `UnsupportedQuery` unless a filter reads and does nothing else."""
    if not isinstance(filter, Mapping):
        raise UnsupportedQuery('a filter is an object such as {"status": "ERROR"}')
    _check_query(filter, 0)


def check_pipeline(pipeline: Any) -> None:
    """Raise `UnsupportedQuery` unless a pipeline reads and does nothing else."""
    _check_stages(pipeline, 0)


def collection_of(stage: str, body: Any) -> str:
    """The collection that a `$lookup`, `$graphLookup` or `$unionWith` reads; raises `UnsupportedQuery`."""
    name = body
    if isinstance(body, Mapping):
        name = body.get("coll" if stage == "$unionWith" else "from")
    if not isinstance(name, str):
        raise UnsupportedQuery(f"{stage} needs the name of a collection")
    if name not in names.COLLECTIONS:
        raise UnsupportedQuery(f"{stage}: no collection {name!r}; there are {', '.join(names.COLLECTIONS)}")
    return name


def _check_stages(pipeline: Any, depth: int) -> None:
    if not isinstance(pipeline, Sequence) or isinstance(pipeline, (str, bytes)):
        raise UnsupportedQuery('a pipeline is a list of stages such as [{"$match": {"status": "ERROR"}}]')
    for stage in pipeline:
        if not isinstance(stage, Mapping) or len(stage) != 1:
            raise UnsupportedQuery("a stage is an object with one operator")
        ((name, body),) = stage.items()
        if name not in STAGES:
            raise UnsupportedQuery(_refusal(name, STAGES, "stage"))
        _CHECKS.get(name, _check_expression)(body, depth + 1)


def _check_query(query: Any, depth: int) -> None:
    """A filter, or any part of one."""
    _check_depth(depth)
    if isinstance(query, Mapping):
        for key, item in query.items():
            if not isinstance(key, str):
                raise UnsupportedQuery(f"{key!r} is no name of a field")
            if key.startswith("$") and key not in QUERY_OPERATORS:
                raise UnsupportedQuery(_refusal(key, QUERY_OPERATORS, "operator"))
            if key == "$expr":
                _check_expression(item, depth + 1)
            else:
                _check_query(item, depth + 1)
    elif isinstance(query, (list, tuple)):
        for item in query:
            _check_query(item, depth + 1)


def _check_expression(body: Any, depth: int) -> None:
    _check_depth(depth)
    if isinstance(body, Mapping):
        for key, item in body.items():
            if not isinstance(key, str):
                raise UnsupportedQuery(f"{key!r} is no name of a field")
            if key.startswith("$") and key not in EXPRESSIONS:
                raise UnsupportedQuery(_refusal(key, EXPRESSIONS, "expression"))
            if key != "$literal":
                _check_expression(item, depth + 1)
    elif isinstance(body, (list, tuple)):
        for item in body:
            _check_expression(item, depth + 1)
    elif isinstance(body, str) and body.startswith("$$"):
        name = body[2:].partition(".")[0]
        if name[:1].isupper() and name not in VARIABLES:
            raise UnsupportedQuery(f"$${name} is refused: queries know {', '.join(sorted(VARIABLES))} alone")


def _check_facet(body: Any, depth: int) -> None:
    if not isinstance(body, Mapping):
        raise UnsupportedQuery("$facet needs an object of pipelines")
    for pipeline in body.values():
        _check_stages(pipeline, depth)


def _check_lookup(body: Any, depth: int) -> None:
    known = {"from", "localField", "foreignField", "let", "pipeline", "as"}
    _check_keys("$lookup", body, known)
    collection_of("$lookup", body)
    _check_stages(body.get("pipeline", []), depth)
    _check_expression({key: item for key, item in body.items() if key != "pipeline"}, depth)


def _check_graph(body: Any, depth: int) -> None:
    known = {
        "from", "startWith", "connectFromField", "connectToField", "as", "maxDepth", "depthField", "restrictSearchWithMatch",
    }  # fmt: skip
    _check_keys("$graphLookup", body, known)
    collection_of("$graphLookup", body)
    _check_query(body.get("restrictSearchWithMatch", {}), depth)
    _check_expression({key: item for key, item in body.items() if key != "restrictSearchWithMatch"}, depth)


def _check_union(body: Any, depth: int) -> None:
    collection_of("$unionWith", body)
    if isinstance(body, Mapping):
        _check_keys("$unionWith", body, {"coll", "pipeline"})
        _check_stages(body.get("pipeline", []), depth)


def _check_keys(stage: str, body: Any, known: set[str]) -> None:
    if not isinstance(body, Mapping):
        raise UnsupportedQuery(f"{stage} needs an object")
    odd = [key for key in body if key not in known]
    if odd:
        raise UnsupportedQuery(f"{stage} takes no {odd[0]!r}")


_CHECKS: dict[str, Callable[[Any, int], None]] = {
    "$match": _check_query, "$facet": _check_facet, "$lookup": _check_lookup, "$graphLookup": _check_graph,
    "$unionWith": _check_union,
}  # fmt: skip


def _check_depth(depth: int) -> None:
    if depth > _DEPTH_MAX:
        raise UnsupportedQuery("the query is nested too deeply")


def _refusal(name: Any, known: frozenset[str], what: str) -> str:
    if name in REASONS:
        return f"{name} is refused: {REASONS[name]}"
    near = difflib.get_close_matches(str(name), sorted(known), n=1)
    return f"no {what} {name} is known to queries" + (f"; did you mean {near[0]}?" if near else "")
