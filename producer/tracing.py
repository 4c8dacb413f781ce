"""The trace that the program is in, by OpenTelemetry, where the program itself has loaded that.

Nothing of it is imported here, and a program without it pays nothing: who looks for it is the sender, between two
rounds, and whoever makes a channel.
"""

from __future__ import annotations

import sys

from provd.common.record import Record
from provd.producer.interrupts import pass_on

_MODULE = "opentelemetry.trace"


def is_loaded() -> bool:
    """Whether there may be a trace."""
    return _MODULE in sys.modules


def trace_fields() -> Record | None:
    """`trace_id`, 32 hexadecimal digits, of the span that this context is in; None outside of one."""
    try:
        span = sys.modules[_MODULE].get_current_span().get_span_context()
        return {"trace_id": f"{span.trace_id:032x}"} if span.is_valid else None
    except Exception as error:  # noqa: BLE001 - another thread may be in the middle of importing it
        pass_on(error)
        return None
