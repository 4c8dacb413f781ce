"""`provd.count`: numbers of the program's own, summed over the processes of a workflow.

- Nothing is raised: what is no number is left out and told once.
- With `durability: disk` what was counted is on disk when the call returns; otherwise it is said in the sender's next
  round, at most once a second, and at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from provd.producer.border import guarded
from provd.producer.process import producer
from provd.producer.totals import NAME_MAX, is_sound
from provd.producer.warning import warn_once
from provd.producer.workflow import current_workflow


def count(**amounts: float) -> None:
    """Add to running totals of this process in the current workflow.

    ```python
    provd.count(rows_in=150, rows_out=148)
    provd.count(llm_calls=1, tokens=1830)
    ```

    Who reads the run has the sums over all its processes: `provd runs show`, `counts` of a run. An amount is a whole
    number or a float, and may be negative. Outside of a workflow nothing happens.
    """
    with guarded:
        workflow = current_workflow()
        channel = None if workflow is None else workflow.channel
        if channel is None:
            return
        for name, amount in amounts.items():
            if not _is_sound(name, amount):
                amounts = _converted(amounts)
                break
        if not amounts:
            return
        try:
            was_told = channel.count(amounts)
        except ValueError as error:
            warn_once("count", f"provd.count: {error}; it is left out")
            return
        if was_told or not channel.is_plain or channel.rests:
            sender = producer().sender
            if sender.asleep:
                sender.wake()
            if not channel.is_plain or channel.rests:
                sender.relieve(channel)


def _is_sound(name: str, amount: Any) -> bool:
    return type(amount) in (int, float) and is_sound(amount) and len(name) <= NAME_MAX


def _converted(amounts: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of other types, such as numpy's, as plain ones; of anything else it is told that it is left out."""
    from provd.producer.capture import convert  # loaded by now, with the channel

    found: dict[str, float] = {}
    for name, amount in amounts.items():
        plain = convert(amount)
        if _is_sound(name, plain):
            found[name] = plain
        else:
            warn_once(
                "count",
                f"provd.count: what is given for {name[:40]} ({type(amount).__name__}) is no number that can be added; "
                "it is left out",
            )
    return found
