"""Values as they are recorded: by value where that can be kept, in short where not, and without passwords."""

import enum
from dataclasses import dataclass
from pathlib import Path

import provd


class Optimizer(enum.Enum):
    ADAM = "adam"


@dataclass
class Config:
    lr: float
    optimizer: Optimizer
    data: Path
    api_key: str


class Mesh:
    """An object of your own says itself what to record."""

    def __init__(self, cells):
        self.cells = cells

    def to_provd_dict(self):
        return {"cells": self.cells}


class Molecule:
    """An object of someone else's is registered."""

    atoms = ("H", "H", "O")


provd.register(Molecule, lambda molecule: {"formula": "".join(molecule.atoms)})


class Model:
    """Anything else is recorded by its type and an identity that tasks share."""


@provd.task
def build(config, mesh, molecule):
    return Model()


@provd.task
def predict(model, rows, database):
    return {"mean": sum(rows) / len(rows)}


with provd.workflow("values"):
    config = Config(0.1, Optimizer.ADAM, Path("data/train.csv"), api_key="not to be seen")
    model = build(config, Mesh(cells=12), Molecule())
    predict(model, rows=list(range(20_000)), database="redis://me:not-to-be-seen@db:6379/0")
