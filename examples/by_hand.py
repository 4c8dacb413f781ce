"""Tasks that are no function calls: blocks, events, and what happened elsewhere or earlier."""

import time

import provd

with provd.workflow("by hand"):
    with provd.Task("download", used={"url": "https://example.org/data"}) as download:
        data = b"binary data"
        download.generated(bytes=len(data))

    parse = provd.Task("parse", used={"bytes": len(data)}, parent=download)
    parse.end(records=42, data=data)  # kept with its checksum

    provd.Task("checkpoint", used={"step": 10}).send()

    now = round(time.time() * 1000)
    transfer = provd.Task("transfer", submitted_at=now - 60_000, started_at=now - 50_000)
    transfer.end(status="CANCELLED", ended_at=now - 10_000, stderr="the link went down")
