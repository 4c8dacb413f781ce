"""Telling the user, once.

A broken setting or a full disk in a job of ten thousand ranks must not fill the logs: each topic warns once per
process. `logging` is used, so that a program decides where its warnings go; it is imported only when there is
something to say.
"""

from __future__ import annotations

from provd.common.passwords import mask_url

_said: set[str] = set()


def warn_once(topic: str, message: str) -> None:
    """Log a warning of logger `provd`, unless this process has already warned about `topic`."""
    if topic in _said:
        return
    _said.add(topic)
    try:
        import logging  # fails in a finalizer, once the interpreter is going down

        logging.getLogger("provd").warning("provd: %s", mask_url(message))
    except Exception:  # noqa: BLE001, S110 - the program's handlers and its stderr, which may be closed, raise anything
        pass
