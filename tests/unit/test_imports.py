"""Imports go one way: common <- producer; common <- store <- consumer, query; cli above all.

The syntax tree of every module is walked, so that imports inside functions count too.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: What each package may import of `provd`, itself included.
MAY_IMPORT = {
    "common": {"common"},
    "producer": {"common", "producer"},
    "store": {"common", "store"},
    "consumer": {"common", "store", "consumer"},
    "query": {"common", "store", "query"},
    "cli": {"common", "producer", "store", "consumer", "query", "cli"},
}

#: Third-party packages of `common`, by module; "*" is every module.
COMMON_NEEDS = {"*": {"msgpack"}, "sources.py": {"yaml"}}

#: The module of `producer` that talks to Redis, in the sender's thread and nowhere else.
REDIS_IN_PRODUCER = {"broker.py"}


@dataclass(frozen=True)
class Import:
    """One imported module, and where."""

    file: Path
    line: int
    module: str
    #: Inside a function, hence not run when the module is imported.
    is_lazy: bool
    #: Under `if TYPE_CHECKING`, hence never run.
    is_for_types: bool

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.module}"

    @property
    def top(self) -> str:
        """The first part of the module's name."""
        return self.module.partition(".")[0]

    @property
    def package(self) -> str | None:
        """The sub-package of `provd` that is imported, or None."""
        parts = self.module.split(".")
        return parts[1] if parts[0] == "provd" and len(parts) > 1 else None


def imports_of(file: Path) -> list[Import]:
    return list(_walk(ast.parse(file.read_text(encoding="utf-8")), file, is_lazy=False, is_for_types=False))


def _walk(node: ast.AST, file: Path, *, is_lazy: bool, is_for_types: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        lazy = is_lazy or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for_types = is_for_types or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test))
        if isinstance(child, ast.Import):
            modules = [alias.name for alias in child.names]
        elif isinstance(child, ast.ImportFrom):
            # `from provd import common` imports provd.common, `from provd.common import ids` provd.common.ids.
            dots, module = "." * child.level, child.module or ""
            modules = [f"{dots}{module}.{alias.name}" for alias in child.names]
        else:
            yield from _walk(child, file, is_lazy=lazy, is_for_types=for_types)
            continue
        for module in modules:
            yield Import(file, child.lineno, module, lazy, for_types)


def modules_of(package: str) -> list[Path]:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files, f"{package}/ has no modules"
    return files


def all_imports(package: str) -> list[Import]:
    return [found for file in modules_of(package) for found in imports_of(file)]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_stands_below_it(package: str) -> None:
    # Names of the facade, as in `from provd import task`, are not sub-packages; only the command line may use them.
    wrong = [
        found for found in all_imports(package) if found.package and found.package not in MAY_IMPORT[package]
    ]

    assert [str(found) for found in wrong] == []


def test_producer_and_consumer_never_import_each_other() -> None:
    wrong = [found for found in all_imports("producer") if found.package == "consumer"]
    wrong += [found for found in all_imports("consumer") if found.package == "producer"]

    assert [str(found) for found in wrong] == []


def test_common_imports_the_standard_library_and_msgpack_only() -> None:
    own = sys.stdlib_module_names | {"provd"}
    wrong = [
        found
        for found in all_imports("common")
        if found.top not in own | COMMON_NEEDS["*"] | COMMON_NEEDS.get(found.file.name, set())
    ]

    assert [str(found) for found in wrong] == []


def test_settings_loads_yaml_only_when_there_is_a_file_to_read() -> None:
    eager = [found for found in all_imports("common") if found.top == "yaml" and not found.is_lazy]

    assert [str(found) for found in eager if not found.is_for_types] == []


def test_the_producer_imports_redis_in_the_senders_module_only_and_late() -> None:
    imports = [found for found in all_imports("producer") if found.top == "redis" and not found.is_for_types]

    assert [str(found) for found in imports if found.file.name not in REDIS_IN_PRODUCER] == []
    assert [str(found) for found in imports if not found.is_lazy] == []


def test_the_producer_imports_no_other_third_party_package() -> None:
    own = sys.stdlib_module_names | {"provd", "msgpack", "redis"}
    wrong = [found for found in all_imports("producer") if found.top not in own and not found.is_for_types]

    assert [str(found) for found in wrong] == []


@pytest.mark.parametrize("package", [*MAY_IMPORT, "examples", "tests", "benchmarks", "src/provd"])
def test_imports_are_absolute_and_begin_with_provd(package: str) -> None:
    # `import producer` would make a second copy of every class in it, and isinstance would fail between the two.
    files = (ROOT / package).rglob("*.py") if package != "src/provd" else (ROOT / package).glob("*.py")
    imports = [found for file in sorted(files) for found in imports_of(file)]

    assert [str(found) for found in imports if found.module.startswith(".") or found.top in MAY_IMPORT] == []


def test_the_facade_imports_nothing_third_party_when_it_is_imported() -> None:
    eager = [found for found in imports_of(ROOT / "src/provd/__init__.py") if not found.is_lazy]

    assert [str(found) for found in eager if found.top not in sys.stdlib_module_names | {"provd"}] == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import redis", [("redis", False)]),
        ("def f():\n    import redis.exceptions", [("redis.exceptions", True)]),
        ("try:\n    from provd import consumer\nexcept ImportError: pass", [("provd.consumer", False)]),
        ("from . import ids", [("..ids", False)]),
        ("from ..store import interface", [("..store.interface", False)]),
    ],
)
def test_the_walk_finds_every_way_to_import(
    tmp_path: Path, source: str, expected: list[tuple[str, bool]]
) -> None:
    """The guards above would pass on anything if the walk found nothing."""
    file = tmp_path / "module.py"
    file.write_text(source)

    assert [(found.module, found.is_lazy) for found in imports_of(file)] == expected
