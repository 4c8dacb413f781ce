"""Generators and coroutines: one task from the first step to the last."""

import asyncio

import provd


@provd.task
def batches(count):
    """One task, with the number of items it yielded."""
    yield from range(count)


@provd.task
async def stream(count):
    """The same, asynchronously."""
    for number in range(count):
        await asyncio.sleep(0)
        yield number


@provd.task
async def fetch(name):
    """Concurrent tasks keep their parents apart by themselves."""
    return [number async for number in stream(len(name))]


@provd.task
async def gather():
    """The parent of both."""
    return await asyncio.gather(fetch("one"), fetch("three"))


with provd.workflow("generators"):
    print(sum(batches(10)))
    print(asyncio.run(gather()))
