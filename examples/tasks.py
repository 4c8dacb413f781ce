"""Functions as tasks: what went in, what came out, and what failed."""

import provd


@provd.task(outputs=("loss", "steps"), tags=["fast"], metadata={"owner": "ada"}, subtype="training")
def train(lr, epochs=3):
    """Names for the parts of a tuple, and labels on every record."""
    if lr > 1:
        raise ValueError("diverged")
    return 0.1 / lr, 100 * epochs


@provd.task(skip=["batch"], outputs=lambda result: {"mean": result})
def evaluate(batch, model):
    """A large argument that is not recorded, and a result that is made fit for the record."""
    return sum(batch) / len(batch)


@provd.task(light=True)
def scale(value, by=2):
    """The cheapest form, for functions that are called millions of times."""
    return value * by


with provd.workflow("tasks"):
    for lr in (0.1, 0.5, 2.0):
        try:
            train(lr)
        except ValueError as error:
            print(f"lr={lr}: {error}")
    evaluate(list(range(1000)), model="linear")
    print(sum(scale(number) for number in range(1000)))
