"""Loops: a task per iteration, with what each one made, and how it ended.

python examples/loops.py
"""

from __future__ import annotations

import itertools

import provd


@provd.task(outputs="loss")
def train(rate: float, epoch: int) -> float:
    return 1 / (1 + rate * epoch)


def main() -> None:
    with provd.workflow("loops"):
        # A task per iteration; the tasks inside have it as their parent, and loops nest.
        for rate in provd.loop([0.1, 0.5], name="trial", item="rate"):
            epochs = provd.loop(range(100), name="epoch", item="epoch")
            for epoch in epochs:
                loss = train(rate, epoch)
                epochs.record(loss=loss)
                if loss < 0.5:
                    break  # this iteration is FINISHED, and recorded with its loss

        # `with` tells which exception ended an iteration, even when it is handled right here.
        try:
            with provd.loop(itertools.count(), name="search") as search:
                for n in search:
                    search.record(candidate=1 / (3 - n))
        except ZeroDivisionError:
            print("the search ended with ERROR in its last iteration")

        # Many short iterations: half the cost, and not the parent of the tasks inside.
        steps = provd.loop(10_000, name="step", light=True)
        for step in steps:
            steps.record(square=step * step)

    print("done")


if __name__ == "__main__":
    main()
