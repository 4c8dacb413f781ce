"""Objects that are no plain values: what can be said of them without running their code.

- Attributes are read from the type's own dictionaries, never through the object: a property, `__getattr__`, `__class__`,
  `__len__` or `__repr__` of the user's is not called, and an object that loads lazily stays as it is.
- An identity is a serial number of this process, never `id()`, which a later object may have again. A weak reference
  holds it: nothing lives longer for being recorded.
- Each task that hands an object on makes a new version of it: what a later task used is known to be what the earlier
  one made, and not what a third one made of it afterwards.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType
from typing import Any, TypeVar

T = TypeVar("T")

#: Libraries whose objects may be large: recorded as type, shape, element type and size.
_ARRAY_LIBRARIES = frozenset(
    {"numpy", "torch", "jax", "jaxlib", "tensorflow", "pandas", "polars", "pyarrow", "scipy", "cupy"}
)

#: Objects that have an identity at one time, at most; further ones are recorded by their type alone.
_IDENTITIES_MAX = 100_000

#: Types that the fast path packs without asking.
_BUILT_IN: frozenset[type] = frozenset({type(None), bool, int, float, str, bytes, list, tuple, dict})

_mro_of = type.__dict__["__mro__"].__get__
_dict_of = type.__dict__["__dict__"].__get__
_module_of = type.__dict__["__module__"].__get__
_qualname_of = type.__dict__["__qualname__"].__get__

_MISSING = object()

#: What to record of the objects of a type, by the identity of the type (which is kept alive here).
_registered: dict[int, tuple[type, Callable[[Any], Any]]] = {}


class _Identity:
    """What is known of an object while it lives: its number, and how many tasks have generated it."""

    __slots__ = ("ref", "serial", "version")

    def __init__(self, ref: weakref.ref[Any], serial: int) -> None:
        self.ref = ref
        self.serial = serial
        self.version = 0


_serials = itertools.count(1)
_known: dict[int, _Identity] = {}


def register(type_: type[T], function: Callable[[T], Any], /) -> None:
    """Record the objects of a type, and of its subclasses, as what `function` makes of them.

    ```python
    provd.register(Molecule, Molecule.to_dict)
    provd.register(Mesh, lambda mesh: {"cells": mesh.n_cells})
    ```

    It runs inside the traced call, so it should be quick, and change nothing. Raises `TypeError` for what is no type
    or no function, and for the built-in types, which are always recorded as they are.
    """
    if not isinstance(type_, type) or not callable(function):
        raise TypeError("provd.register takes a type, and a function that says what to record of its objects")
    if type_ in _BUILT_IN or type_ is object:
        raise TypeError(f"{type_.__name__} is always recorded as it is")
    _registered[id(type_)] = (type_, function)


def registered_function(kind: type) -> Callable[[Any], Any] | None:
    """What was registered for a type or the nearest of its bases."""
    if _registered:
        for base in _mro_of(kind):
            found = _registered.get(id(base))
            if found is not None:
                return found[1]
    return None


def type_name(value: Any) -> str:
    """`module.Class`; built-in types by their bare name."""
    return name_of(type(value))


def name_of(kind: type) -> str:
    """The name of a type, whatever it says of itself."""
    module = _module_name(kind)
    name = _qualname_of(kind)
    return str(name) if module in ("builtins", "") else f"{module}.{name}"


def declared(kind: type, name: str) -> Any:
    """What a type or one of its bases declares under a name, or None."""
    for base in _mro_of(kind):
        found = _dict_of(base).get(name, _MISSING)
        if found is not _MISSING:
            return found
    return None


def instance_dict(value: Any) -> dict[str, Any]:
    """An object's own attributes; empty for one that keeps none in a dictionary."""
    for base in _mro_of(type(value)):
        found = _dict_of(base).get("__dict__")
        if type(found) in (GetSetDescriptorType, MemberDescriptorType):
            attributes = found.__get__(value)
            return attributes if type(attributes) is dict else {}
    return {}


def dataclass_fields(value: Any) -> dict[str, Any] | None:
    """The fields of a dataclass by name, or None for anything else."""
    fields = declared(type(value), "__dataclass_fields__")
    if type(fields) is not dict:
        return None
    attributes = instance_dict(value)
    found: dict[str, Any] = {}
    for name in fields:
        if name in attributes:
            found[name] = attributes[name]
            continue
        slot = declared(type(value), name)
        if type(slot) is MemberDescriptorType:
            try:
                found[name] = slot.__get__(value)
            except AttributeError:
                pass  # never set
    return found


def summary(value: Any, made: set[int] | None = None) -> dict[str, Any] | None:
    """An array, tensor or data frame in short, or None for anything else. Its data is not touched."""
    kind = type(value)
    home = _home(kind)
    shape = _of_library(value, kind, "shape") if home in _ARRAY_LIBRARIES else None
    if not isinstance(shape, tuple):
        return None
    said: dict[str, Any] = {"type": name_of(kind), "shape": [int(side) for side in tuple.__iter__(shape)]}
    dtype = _of_library(value, kind, "dtype")
    if dtype is not None:
        said["dtype"] = str(dtype)
    size = _of_library(value, kind, "nbytes")
    if isinstance(size, int):
        said["bytes"] = int(size)
    return _with_identity(said, value, made)


def identify(value: Any, made: set[int] | None = None) -> dict[str, Any]:
    """An object by its type, its name if it is a function or a class, and its identity, if it can have one.

    `made` is given where a task hands the object on: the numbers of those that it has handed on already.
    """
    kind = type(value)
    said: dict[str, Any] = {"type": name_of(kind)}
    if kind is FunctionType:
        said["name"] = f"{value.__module__}.{value.__qualname__}"
    elif issubclass(kind, type):
        said["name"] = name_of(value)
    return _with_identity(said, value, made)


def _with_identity(said: dict[str, Any], value: Any, made: set[int] | None) -> dict[str, Any]:
    identity = _identity(value)
    if identity is None:
        return said
    # Late, for `process` imports this: it has a producer before there is an object to name.
    from provd.producer.process import producer

    if made is not None and identity.serial not in made:
        made.add(identity.serial)
        identity.version += 1
    said["object"] = f"{producer().id}#{identity.serial}"
    if identity.version:
        said["version"] = identity.version
    return said


def _identity(value: Any) -> _Identity | None:
    key = id(value)
    found = _known.get(key)
    if found is not None and found.ref() is value:
        return found
    if len(_known) >= _IDENTITIES_MAX:
        return None

    def forget(dead: weakref.ref[Any]) -> None:
        entry = _known.get(key)
        if entry is not None and entry.ref is dead:
            del _known[key]

    try:
        entry = _Identity(weakref.ref(value, forget), next(_serials))
    except TypeError:
        return None
    if found is not None:
        _known[key] = entry  # the address of one that is gone, and was not forgotten yet
        return entry
    return _known.setdefault(key, entry)  # of two threads at once, one gives the number


def _home(kind: type) -> str | None:
    """The array library that a type, or the nearest of its bases, comes from."""
    for base in _mro_of(kind):
        root = _module_name(base).partition(".")[0]
        if root in _ARRAY_LIBRARIES:
            return root
    return None


def _of_library(value: Any, kind: type, name: str) -> Any:
    """An attribute as the library defines it, whatever a subclass of the user's makes of it."""
    for base in _mro_of(kind):
        if _module_name(base).partition(".")[0] in _ARRAY_LIBRARIES and name in _dict_of(base):
            found = _dict_of(base)[name]
            read = declared(type(found), "__get__")
            return read(found, value, kind) if read is not None else found
    return None


def _module_name(kind: type) -> str:
    try:
        module = _module_of(kind)
    except AttributeError:
        return ""
    return module if type(module) is str else ""
