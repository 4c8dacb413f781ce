"""A write that ends between links and tasks, in MongoDB; in the embedded store both are one transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from provd.common import names
from provd.common.errors import StoreUnavailable
from provd.query.lineage import trace
from provd.store.open import open_store
from tests.contract.messages import START_MS, task
from tests.contract.test_links import pair
from tests.services.mongo_server import MongoServer


@pytest.mark.parametrize("cut_off", [names.LINKS, names.TASKS])
def test_a_batch_that_comes_again_has_all_its_links_and_none_is_read_before(
    private_mongo: Callable[..., MongoServer], cut_off: str
) -> None:
    """G3: what a crash leaves behind is nothing, or links that nobody reads; the frame comes again."""
    server = private_mongo(parameters={"enableTestCommands": "1"})
    store = open_store(server.database_url("provd"))
    store.migrate()
    store.write([task(9, number=9)], received_at=START_MS)
    data: dict[str, Any] = {"failCommands": ["insert"], "namespace": f"provd.{cut_off}", "errorCode": 11600}
    with server.client() as client:
        client.admin.command({"configureFailPoint": "failCommand", "mode": {"times": 2}, "data": data})

        with pytest.raises(StoreUnavailable):
            store.write(pair(), received_at=START_MS)
        left_behind = store.count(names.LINKS, {})
        assert store.count(names.TASKS, {}) == 1
        client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})
    store.write(pair(), received_at=START_MS)

    assert left_behind == (0 if cut_off == names.LINKS else 2)
    assert store.count(names.LINKS, {}) == 2
    assert len(trace(store, "w1-00000002").edges) == 1
    store.close()
