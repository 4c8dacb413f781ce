"""From the arguments of a call to the named values that are recorded.

Read from the function's code object when it is decorated, without `inspect`; a call with plain positional arguments
costs one comparison.

- Every parameter with a value is recorded, defaults included; the object a method belongs to is not.
- `*args` are one list under their name, `**kwargs` stand beside the named ones; an `argparse.Namespace` is flattened.
- A call that Python will refuse is recorded as far as the names go; refusing it is Python's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from types import MethodType
from typing import Any

from provd.producer.capture import Frozen, freeze, freeze_map, hide_at
from provd.producer.rules import Rules, current_rules

_VAR_POSITIONAL = 0x04
_VAR_KEYWORD = 0x08

#: First parameters that are the object a method belongs to, not something it uses.
_RECEIVERS = frozenset({"self", "cls"})


class Signature:
    """The parameters of one function, and which of them are recorded."""

    def __init__(self, fn: Callable[..., Any], skip: Collection[str] = ()) -> None:
        #: Names that every call has a value for, in order; None where a call may have others.
        self.names: tuple[str, ...] | None = None
        self._skip = frozenset(skip)
        self._all = tuple[str, ...]()
        self._kept: list[int] = []
        self._keeps_all = True
        self._judged_by: Rules | None = None
        self._secret = tuple[int, ...]()
        self._positional = 0
        self._defaults: dict[str, Any] = {}
        self._positional_only = frozenset[str]()
        self._var_positional: str | None = None
        self._var_keyword: str | None = None
        function, bound = _innermost(fn)
        code = getattr(function, "__code__", None)
        self._known = code is not None
        if code is None:
            return
        self._read(function, code, bound)
        self._kept = [index for index, name in enumerate(self._all) if name not in self._skip]
        self._keeps_all = len(self._kept) == len(self._all)
        if self._var_positional is None and self._var_keyword is None:
            self.names = tuple(self._all[index] for index in self._kept)

    def _read(self, function: Any, code: Any, bound: int) -> None:
        named = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        rest = list(code.co_varnames[len(named) :])
        if code.co_flags & _VAR_POSITIONAL:
            self._var_positional = rest.pop(0)
        if code.co_flags & _VAR_KEYWORD:
            self._var_keyword = rest.pop(0)
        defaults = function.__defaults__ or ()
        self._defaults = dict(zip(named[code.co_argcount - len(defaults) : code.co_argcount], defaults))
        self._defaults.update(function.__kwdefaults__ or {})
        self._positional_only = frozenset(code.co_varnames[: code.co_posonlyargcount])
        self._all = named[bound:]
        self._positional = code.co_argcount - bound
        if self._positional and self._all[0] in _RECEIVERS:
            self._skip |= {self._all[0]}

    @property
    def plain_names(self) -> tuple[str, ...] | None:
        """The names, where a call by place or by name, in their order, has a value for each and none is hidden."""
        names = self.names
        if names is None or not self._keeps_all or self._positional != len(self._all):
            return None
        return None if current_rules().secrets.positions(names) else names

    def declares(self, name: str) -> bool:
        """Whether the function itself takes a keyword of this name."""
        return not self._known or name in self._all or self._var_keyword is not None

    def freeze(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Frozen, bool]:
        """The values of a call, and whether they are in the order of `names`; otherwise they name themselves."""
        if self.names is not None:
            values = (
                args
                if not kwargs and len(args) == self._positional == len(self._all)
                else self._bind(args, kwargs)
            )
            if values is not None:
                kept = values if self._keeps_all else tuple([values[index] for index in self._kept])
                if self._judged_by is not current_rules():
                    self._judge()
                frozen = freeze(hide_at(self._secret, kept) if self._secret else kept)
                if type(frozen) is tuple or not _has_namespace(kept):
                    return frozen, True
        return freeze_map(self.bound(args, kwargs)), False

    def _judge(self) -> None:
        """Find the places of credentials: once, at the first call, when the settings are known."""
        self._judged_by = current_rules()
        self._secret = self._judged_by.secrets.positions(self.names or ())

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The recorded arguments of a call by name; those without one are `arg_0`, `arg_1`, …"""
        named = {**self._defaults, **dict(zip(self._all[: self._positional], args))}
        rest = args[self._positional :]
        if self._var_positional is not None and rest:
            named[self._var_positional] = rest
            rest = ()
        named |= {f"arg_{index}": value for index, value in enumerate(rest)}
        for name, value in kwargs.items():
            if self._var_keyword is not None and (
                name in self._positional_only or name == self._var_positional
            ):
                named.setdefault(self._var_keyword, {})[name] = value  # a name that another value has
            else:
                named[name] = value
        flat: dict[str, Any] = {}
        for name, value in named.items():
            if name not in self._skip:
                flat.update(vars(value) if _has_namespace((value,)) else {name: value})
        return flat

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...] | None:
        """A value for each parameter, or None for a call that Python will refuse."""
        given = dict(zip(self._all, args))
        if len(args) > self._positional or not given.keys().isdisjoint(kwargs):
            return None
        found = {**self._defaults, **given, **kwargs}
        if len(found) != len(self._all):
            return None
        try:
            return tuple([found[name] for name in self._all])
        except KeyError:
            return None


def _innermost(fn: Any) -> tuple[Any, int]:
    """The function below other decorators, and how many of its first parameters are bound already."""
    bound = 0
    for _ in range(100):  # a ring of `__wrapped__` must not hang an import
        if isinstance(fn, MethodType):
            fn, bound = fn.__func__, 1
        elif hasattr(fn, "__wrapped__"):
            fn = fn.__wrapped__
        else:
            break
    return fn, bound


def _has_namespace(values: tuple[Any, ...]) -> bool:
    argparse = sys.modules.get("argparse")
    return argparse is not None and any(issubclass(type(value), argparse.Namespace) for value in values)
