"""Without any service: files are written, read back, and can be brought in later with `provd replay`."""

import os
import tempfile

folder = tempfile.mkdtemp(prefix="provd-example-")
os.environ["PROVD_BROKER_URL"] = f"file://{folder}"  # before the first workflow; a job script would export it

import provd  # noqa: E402


@provd.task
def train(lr):
    """Something to record."""
    return {"loss": 1 / lr}


with provd.workflow("offline"):
    train(0.5)
    train(0.25)
    provd.flush(5)
    for task in provd.read_jsonl(folder):
        print(task["used"], task["generated"], task["status"])
