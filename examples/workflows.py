"""Workflows of every form: a block, a function, by hand, and one inside another."""

import asyncio

import provd


@provd.task
def step(n):
    """Something that belongs to whichever workflow is current."""
    return n * n


@provd.workflow("nightly", tags=["scheduled"])
def nightly(days):
    """Every call is a workflow of its own."""
    return [step(day) for day in range(days)]


@provd.workflow("asynchronous")
async def asynchronous():
    """A coroutine function, to its last step."""
    await asyncio.sleep(0)
    return step(3)


with provd.workflow("study", campaign_id="examples", args={"parts": 2}) as study:
    for part in range(2):
        with provd.workflow(f"part-{part}"):  # knows the study as its parent
            step(part)

by_hand = provd.workflow("by hand").start()
step(10)
by_hand.stop()

nightly(3)
asyncio.run(asynchronous())
print(study.workflow_id)
