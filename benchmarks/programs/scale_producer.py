"""Captured calls, and the CPU time that they take once the process has started up.

Arguments: tasks, workflows that are open at once, tasks in one before the next has its turn, and tasks before anything
is measured. Prints CPU microseconds a task: all threads, until Redis has accepted the last one.
"""

import contextvars
import json
import sys
import time

import provd


@provd.task
def step(lr: float, epochs: int, optimizer: str, rate: int) -> dict[str, float]:
    """Do nothing."""
    return {"loss": 0.1, "steps": epochs}


def work(first: int, count: int) -> None:
    """Call so often."""
    for number in range(first, first + count):
        step(0.1, number, "adam", 7)


def main() -> None:
    """Open the workflows, warm up, measure."""
    tasks, workflows, turn, before = map(int, sys.argv[1:])
    contexts, opened = [], []
    for number in range(workflows):
        context = contextvars.copy_context()
        opened.append(context.run(provd.workflow("load", workflow_id=f"scale-{number}").start))
        contexts.append(context)
    for context in contexts:
        context.run(work, 0, max(1, before // workflows))
    provd.flush(60)

    begun, done = time.process_time(), 0
    while done < tasks:
        for context in contexts:
            count = min(turn, tasks - done)
            if not count:
                break
            context.run(work, done, count)
            done += count
    provd.flush(60)
    used = time.process_time() - begun

    for context, workflow in zip(contexts, opened, strict=True):
        context.run(workflow.stop)
    print(json.dumps({"microseconds": used / tasks * 1e6}))


main()
