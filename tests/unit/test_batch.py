"""The ledger's ranges for a batch, whatever the order of its messages."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from provd.common.record import Kind, Message
from provd.consumer.batch import ledger
from provd.store.interface import Refusal

places = st.lists(st.tuples(st.sampled_from("pq"), st.sampled_from("vw"), st.integers(1, 12)), max_size=40)


def message(producer_id: str, workflow_id: str, seq: int) -> Message:
    return Message(Kind.TASK, producer_id, workflow_id, seq, {})


@given(places, places)
def test_the_ledger_says_exactly_what_was_stored_in_ranges_that_never_touch(
    stored: list[tuple[str, str, int]], refused: list[tuple[str, str, int]]
) -> None:
    messages = [message(*place) for place in stored]
    refusals = [Refusal(message(*place), "no") for place in refused]

    ranges = ledger(messages, refusals)

    said = [
        (one.producer_id, one.workflow_id, seq)
        for one in ranges
        for seq in range(one.first_seq, one.last_seq + 1)
    ]
    assert sorted(said) == sorted(set(stored) - set(refused))
    ends = {(one.producer_id, one.workflow_id, one.last_seq + 1) for one in ranges}
    assert ends.isdisjoint((one.producer_id, one.workflow_id, one.first_seq) for one in ranges)
