"""What tells two runs apart: what went in, which code, which configuration. Equal ones can be looked for.

- What the program gives is recorded as it is; what it does not give is derived from the record, where that is possible.
- `config_hash` is a SHA-256 over `args` as they are recorded, in one canonical form: JSON with sorted keys, without
  spaces, in ASCII. It depends neither on the order of keys, nor on the version of Python, nor on which process it was,
  nor on whether a number was written 1 or 1.0.
- `input_fingerprint` of one file is its SHA-256; of several that over the sorted lines of their checksums, so that
  neither their order nor their places count.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from provd.common.record import Record
from provd.producer import forks
from provd.producer.capture import convert
from provd.producer.entities import File
from provd.producer.interrupts import pass_on
from provd.producer.warning import warn_once

#: A text, or the files that went in, perhaps by name.
Inputs: TypeAlias = (
    "str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | Mapping[str, str | os.PathLike[str]]"
)

#: Characters of a text that the program gives.
_TEXT_MAX = 1024

#: Floats beyond this are no longer apart from each other by one.
_WHOLE_MAX = float(1 << 53)

_INT64_MAX = (1 << 63) - 1

#: The identity of an object within its process; another process gives it another one.
_IDENTITY = re.compile(r"\S+#\d+")


def fingerprints(given: Mapping[str, Any], record: Record) -> Record:
    """The fields that tell a run apart: given ones, and what follows from the rest of its record."""
    args = record.get("args")
    found = {
        "code_ref": _text(given.get("code_ref")) or _of_code(record.get("code")),
        "config_hash": _text(given.get("config_hash")) or (config_hash(args) if args else None),
    }
    try:
        found["input_fingerprint"] = _of_inputs(given.get("input_fingerprint"))
    except Exception as error:  # noqa: BLE001 - what is given is the program's, and may be anything
        pass_on(error)
        _tell(f"{type(error).__name__}: {error}")
    return {name: value for name, value in found.items() if value is not None}


def config_hash(args: Any) -> str:
    """The hash of arguments as they are recorded."""
    with forks.loading:
        import hashlib
        import json

    text = json.dumps(_canonical(args), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _canonical(value: Any) -> Any:
    """The value in types that JSON has one form for."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= _WHOLE_MAX else value
    if isinstance(value, int) and not isinstance(value, bool):
        return value if -_INT64_MAX <= value <= _INT64_MAX else hex(value)
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, dict):
        return _canonical_map(value)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _canonical_map(items: dict[Any, Any]) -> dict[str, Any]:
    import json

    is_object = "type" in items and _IDENTITY.fullmatch(str(items.get("object")))
    found: dict[str, list[Any]] = {}
    for key, value in items.items():
        if is_object and key in ("object", "version"):
            continue
        name = key if isinstance(key, str) else json.dumps(_canonical(key), sort_keys=True)
        found.setdefault(name, []).append(_canonical(value))
    return {
        name: values[0] if len(values) == 1 else sorted(values, key=json.dumps)
        for name, values in found.items()
    }


def _of_code(code: Any) -> str | None:
    """The commit, with a mark where what runs differs from it."""
    commit = code.get("commit") if isinstance(code, dict) else None
    return None if not commit else f"{commit}-dirty" if code.get("dirty") else str(commit)


def _text(given: Any) -> str | None:
    return None if given is None else str(convert(given))[:_TEXT_MAX]


def _of_inputs(given: Any) -> str | None:
    if given is None or isinstance(given, str):
        return _text(given)
    if isinstance(given, Mapping):
        files = {str(name): _file(file) for name, file in given.items()}
    else:
        several = [given] if isinstance(given, os.PathLike) else list(given)
        files = {f"{number}": _file(file) for number, file in enumerate(several)}
    sums = {name: _checksum(file) for name, file in files.items()}
    missing = [str(files[name]) for name, checksum in sums.items() if checksum is None]
    if missing or not sums:
        _tell(f"{missing[0][:200]} cannot be read" if missing else "there is no file")
        return None
    if isinstance(given, os.PathLike):
        return sums["0"]
    named = isinstance(given, Mapping)
    lines = sorted(f"{checksum}  {name}\n" if named else f"{checksum}\n" for name, checksum in sums.items())
    return _sha256("".join(lines))


def _tell(what: str) -> None:
    warn_once("input_fingerprint", f"input_fingerprint: {what}; it is left out")


def _file(given: Any) -> File:
    return given if isinstance(given, File) else File(given)


def _checksum(file: File) -> str | None:
    """What stands for the file's content; of one too large to be read: where it is, its size and its last change."""
    facts = file.to_provd_dict()
    if "sha256" in facts:
        return str(facts["sha256"])
    if "size" in facts:
        return _sha256(f"{facts['path']} {facts['size']} {facts['modified_ns']}")
    return None


def _sha256(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
