"""A real workload, with provd and without in turn, in one process: one JSON object with what each pass took.

Arguments: `sweep` or `training`, the passes of each kind, and where the sweep is. Without, the same functions run
undecorated. A pass with provd is a workflow, and ends when Redis has accepted all of it.
"""

import importlib.util
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import provd


def load(path: str) -> Any:
    spec = importlib.util.spec_from_file_location("sweep", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sweep_passes(path: str) -> tuple[Callable[[Any], None], Any, Any, int]:
    """The repository's example: the configurations of a sweep on handwritten digits, cross-validated."""
    captured, plain = load(path), load(path)
    plain.fit, plain.evaluate = plain.fit.__wrapped__, plain.evaluate.__wrapped__
    for module in (captured, plain):
        module.load.__wrapped__(3)
    # As the example has it, but for the configuration that is wrong, and for models that fit in less than 10 ms.
    chosen = [each for each in plain.configurations()[1:] if each["model"] != "neighbors"]

    def over(module: Any) -> None:
        for each in chosen:
            module.evaluate(**each)

    return over, captured, plain, len(chosen) * 4


def training_passes(_path: str) -> tuple[Callable[[Any], None], Any, Any, int]:
    """A neural network, epoch by epoch."""
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    images, labels = load_digits(return_X_y=True)
    images = images / 16.0
    epochs = 60

    def epoch(model: Any, number: int, rate: float) -> dict[str, float]:
        model.partial_fit(images, labels, classes=range(10))
        return {"loss": model.loss_, "accuracy": model.score(images, labels)}

    def over(step: Any) -> None:
        model = MLPClassifier((128,), learning_rate_init=0.001, random_state=7)
        for number in range(epochs):
            step(model, number, 0.001)

    return over, provd.task(epoch), epoch, epochs


def timed(work: Callable[[], None]) -> list[float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return [time.perf_counter() - wall, time.process_time() - cpu]


over, captured, plain, tasks = {"sweep": sweep_passes, "training": training_passes}[sys.argv[1]](sys.argv[3])


def with_provd() -> None:
    with provd.workflow(sys.argv[1]):
        over(captured)
        assert provd.flush(30.0)


def without() -> None:
    over(plain)


with_provd()
without()  # what is loaded and warmed by the first pass is there for both
kinds: dict[str, tuple[Callable[[], None], list[list[float]]]] = {
    "with": (with_provd, []),
    "without": (without, []),
}
for number in range(int(sys.argv[2])):
    for name in list(kinds) if number % 2 else list(kinds)[::-1]:
        work, samples = kinds[name]
        samples.append(timed(work))
print(json.dumps({"tasks": tasks, **{name: samples for name, (_, samples) in kinds.items()}}))
