"""From the arguments of a call to the named values that are recorded.

Read from the function's code object when it is decorated, without `inspect`; a call with plain positional arguments
costs one comparison.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from provd.producer.capture import Frozen, freeze, freeze_map

_VAR_POSITIONAL = 0x04
_VAR_KEYWORD = 0x08

#: First arguments that are the object a method belongs to, not something it uses.
_RECEIVERS = frozenset({"self", "cls"})


class Signature:
    """The parameters of one function."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        code = getattr(fn, "__code__", None)
        #: Names that every call has a value for, in order; None where the function does not tell its parameters.
        self.names: tuple[str, ...] | None = None
        self._skip = 0
        if code is None:
            return
        named = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        self._positional = code.co_argcount
        self._skip = 1 if code.co_argcount and named[0] in _RECEIVERS else 0
        self._all = named
        rest = code.co_varnames[len(named) :]
        self._var_positional = rest[0] if code.co_flags & _VAR_POSITIONAL else None
        has_var_positional = self._var_positional is not None
        self._var_keyword = rest[has_var_positional] if code.co_flags & _VAR_KEYWORD else None
        defaults = getattr(fn, "__defaults__", None) or ()
        self._defaults = dict(zip(named[self._positional - len(defaults) : self._positional], defaults))
        self._defaults.update(getattr(fn, "__kwdefaults__", None) or {})
        if self._var_positional is None and self._var_keyword is None:
            self.names = named[self._skip :]

    def freeze(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Frozen, bool]:
        """The values of a call, and whether they are in the order of `names`; otherwise they name themselves."""
        names = self.names
        if names is not None:
            if not kwargs and len(args) == self._positional == len(self._all):
                return freeze(args[self._skip :]), True
            values = self._bind(args, kwargs)
            if values is not None:
                return freeze(values[self._skip :]), True
        return freeze_map(self._named(args, kwargs)), False

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...] | None:
        """A value for each name, or None for a call that Python will refuse."""
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

    def _named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """As much as the signature tells; arguments without a name are `arg_0`, `arg_1`, …"""
        named: dict[str, Any] = {}
        rest = args
        if hasattr(self, "_all"):
            positional = self._all[: self._positional]
            named = dict(zip(positional, args))
            rest = args[len(positional) :]
            named = {**self._defaults, **named}
            for receiver in positional[: self._skip]:
                named.pop(receiver, None)
            if self._var_positional is not None and rest:
                named[self._var_positional] = rest
                rest = ()
        return {**named, **{f"arg_{index}": value for index, value in enumerate(rest)}, **kwargs}
