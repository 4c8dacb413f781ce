"""A MongoDB that is killed while it is written to, and a store file that is taken away."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from provd.common.errors import StoreUnavailable
from provd.store.open import open_store
from tests.contract.messages import START_MS, task
from tests.services.mongo_server import MongoServer


def test_what_write_returned_for_survives_a_kill_of_the_server(
    private_mongo: Callable[..., MongoServer],
) -> None:
    """Given a replica set, killed in the middle of batches; when it is back, every batch that returned is there."""
    server = private_mongo(replica_set=True)
    store = open_store(server.url, timeout_s=5.0)
    store.migrate()
    confirmed: list[int] = []
    some_are = threading.Event()
    outcome: list[BaseException] = []

    def write_until_away() -> None:
        try:
            for number in range(1, 1_000_000, 50):
                written = store.write([task(seq) for seq in range(number, number + 50)], received_at=START_MS)
                assert (written.stored, written.refused) == (50, ())
                confirmed.extend(range(number, number + 50))
                if len(confirmed) >= 1000:
                    some_are.set()
        except (StoreUnavailable, AssertionError) as error:
            outcome.append(error)

    writer = threading.Thread(target=write_until_away)
    writer.start()
    assert some_are.wait(60)
    server.kill()
    writer.join(60)

    server.start()
    again = open_store(server.url, timeout_s=20.0)
    found = {document["seq"] for document in again.find("tasks", {}, fields=["seq"])}
    replayed = again.write([task(seq) for seq in confirmed], received_at=START_MS)
    store.close()
    again.close()

    assert [type(error) for error in outcome] == [StoreUnavailable]
    assert set(confirmed) <= found
    assert replayed.duplicates == len(confirmed)


@pytest.mark.parametrize("replaced", [False, True])
def test_what_went_into_a_store_file_that_somebody_has_removed_is_not_confirmed(
    tmp_path: Path,
    replaced: bool,
) -> None:
    """G2: it would be acknowledged, receipted, and gone with the process."""
    url = f"sqlite:///{tmp_path}/provd.db"
    store = open_store(url)
    store.migrate()
    store.write([task(1)], received_at=START_MS)
    for path in tmp_path.glob("provd.db*"):
        path.unlink()
    if replaced:
        other = open_store(url)
        other.migrate()
        other.close()

    with pytest.raises(StoreUnavailable, match="removed or replaced"):
        store.write([task(2)], received_at=START_MS)

    store.migrate()
    assert store.write([task(2)], received_at=START_MS).stored == 1
    assert [document["seq"] for document in store.find("tasks", {})] == [2]
    store.close()
