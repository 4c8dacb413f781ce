"""Numbers that people track, and what tells one run from another."""

import provd


@provd.task
def clean(batch):
    """Drops what is empty."""
    kept = [row for row in batch if row]
    provd.count(rows_in=len(batch), rows_out=len(kept))
    return len(kept)


with provd.workflow(
    "etl",
    campaign_id="examples",
    args={"threshold": 0.5},  # their hash is `config_hash`
    input_fingerprint=provd.File(__file__),
) as run:
    for batch in (["a", "", "b"], ["", "c"]):
        clean(batch)

print(run.workflow_id)  # `provd runs show` has: counts  rows_in 5, rows_out 3
