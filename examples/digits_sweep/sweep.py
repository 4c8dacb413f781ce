"""A hyper-parameter sweep on the handwritten digits that come with scikit-learn (1,797 images of 8 x 8 pixels).

One process owns the workflow and starts the workers; each worker is a process of its own that joins the workflow by
`--workflow-id`, as the ranks of a job would. One configuration is wrong on purpose, and is recorded as what it is.

    python examples/digits_sweep/sweep.py --workers 4
    provd runs show last

Where the records go is not this script's business: set PROVD_BROKER_URL (or nothing at all).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from typing import Any

import provd

CAMPAIGN = "handwritten-digits"


def configurations() -> list[dict[str, Any]]:
    """Every configuration of the sweep, the wrong one among them."""
    found: list[dict[str, Any]] = [{"model": "svm", "C": 1.0, "gamma": -1.0}]  # a kernel of negative width
    for c in (0.1, 1.0, 10.0):
        found += [{"model": "svm", "C": c, "gamma": gamma} for gamma in (0.01, 0.03, 0.1, 0.3)]
    for neighbors in (1, 3, 5, 9):
        found += [
            {"model": "neighbors", "neighbors": neighbors, "weights": w} for w in ("uniform", "distance")
        ]
    for trees in (10, 30, 60):
        found += [{"model": "forest", "trees": trees, "depth": depth} for depth in (4, 8, 16)]
    for strength in (0.01, 0.1, 1.0, 10.0):
        found += [{"model": "logistic", "C": strength}]
    return found


@provd.task(outputs="folds")
def load(folds: int) -> int:
    """Read the data once per worker; what the tasks below share."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import StratifiedKFold

    images, labels = load_digits(return_X_y=True)
    parts = StratifiedKFold(folds, shuffle=True, random_state=7).split(images, labels)
    DATA.update(images=images / 16.0, labels=labels, parts=list(parts))
    return len(DATA["parts"])


DATA: dict[str, Any] = {}


@provd.task
def evaluate(model: str, **parameters: Any) -> dict[str, Any]:
    """Cross-validate one configuration."""
    scores = [fit(model, fold, **parameters)["accuracy"] for fold in range(len(DATA["parts"]))]
    return {"accuracy": sum(scores) / len(scores), "worst": min(scores), "folds": len(scores)}


@provd.task
def fit(model: str, fold: int, **parameters: Any) -> dict[str, Any]:
    """Train on all folds but one and score on that one."""
    train, test = DATA["parts"][fold]
    classifier = build(model, **parameters).fit(DATA["images"][train], DATA["labels"][train])
    return {"accuracy": classifier.score(DATA["images"][test], DATA["labels"][test]), "images": len(train)}


def build(model: str, **parameters: Any) -> Any:
    """The classifier of a configuration."""
    if model == "svm":
        from sklearn.svm import SVC

        return SVC(C=parameters["C"], gamma=parameters["gamma"])
    if model == "neighbors":
        from sklearn.neighbors import KNeighborsClassifier

        return KNeighborsClassifier(parameters["neighbors"], weights=parameters["weights"])
    if model == "forest":
        from sklearn.ensemble import RandomForestClassifier

        return RandomForestClassifier(parameters["trees"], max_depth=parameters["depth"], random_state=7)
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=parameters["C"], max_iter=1000)


def work(worker: int, workers: int, folds: int) -> None:
    """One worker's share of the configurations."""
    with provd.workflow("digits-sweep-worker", tags=[f"worker-{worker}"]):
        load(folds)
        for configuration in configurations()[worker::workers]:
            try:
                evaluate(**configuration)
            except ValueError as error:
                print(f"worker {worker}: {configuration}: {error}", file=sys.stderr)


def lead(workers: int, folds: int, campaign_id: str | None) -> int:
    """Own the workflow, start the workers and wait for them; the number of those that failed."""
    arguments = {"workers": workers, "folds": folds, "configurations": len(configurations())}
    with provd.workflow("digits-sweep", campaign_id=campaign_id or CAMPAIGN, args=arguments) as workflow:
        provd.Task("plan", used=arguments).send()
        print(f"workflow {workflow.workflow_id}", flush=True)
        started = [start_worker(worker, workers, folds, workflow.workflow_id) for worker in range(workers)]
        return sum(process.wait() != 0 for process in started)


def start_worker(worker: int, workers: int, folds: int, workflow_id: str | None) -> subprocess.Popen[bytes]:
    """Start this script again as a worker that joins the workflow."""
    command = [
        sys.executable,
        __file__,
        "--workers",
        str(workers),
        "--worker",
        str(worker),
        "--folds",
        str(folds),
    ]
    if workflow_id is not None:
        command += ["--workflow-id", workflow_id]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})


def main() -> int:
    """Parse the command line and do one of the two jobs."""
    parser = argparse.ArgumentParser(description="Hyper-parameter sweep on handwritten digits.")
    parser.add_argument("--workers", type=int, default=4, help="processes that share the work (default: 4)")
    parser.add_argument("--worker", type=int, help="work as this worker, from 0; the leader passes it")
    parser.add_argument("--folds", type=int, default=3, help="parts of the cross-validation (default: 3)")
    provd.add_arguments(parser)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        work(arguments.worker, arguments.workers, arguments.folds)
        return 0
    return 1 if lead(arguments.workers, arguments.folds, arguments.campaign_id) else 0


if __name__ == "__main__":
    sys.exit(main())
