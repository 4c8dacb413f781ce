"""Keep some paths of a document, as a MongoDB projection does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from provd.common.record import Record

_Tree: TypeAlias = "dict[str, _Tree]"


def project(document: Record, paths: Sequence[str]) -> Record:
    """The document with only these paths; through arrays, the paths of each element that is a document."""
    tree: _Tree = {}
    for path in paths:
        branch = tree
        for part in path.split("."):
            branch = branch.setdefault(part, {})
    kept: Record = _keep(document, tree)
    return kept


def _keep(value: dict[str, Any], tree: _Tree) -> dict[str, Any]:
    kept = {}
    for name, item in value.items():
        branch = tree.get(name)
        if branch is None:
            continue
        if not branch:
            kept[name] = item
        elif isinstance(item, dict):
            kept[name] = _keep(item, branch)
        elif isinstance(item, list):
            kept[name] = _keep_in_list(item, branch)
    return kept


def _keep_in_list(items: list[Any], tree: _Tree) -> list[Any]:
    return [
        _keep(item, tree) if isinstance(item, dict) else _keep_in_list(item, tree)
        for item in items
        if isinstance(item, (dict, list))
    ]
