"""Atoms in the stages of a tilt series: traced in the volume of one stage, refined from the patterns in the next.

What such a stage was handed lies in the run's folder as `before_stage_2.h5` (stages count from 0), from which a resumed
run makes the same atoms again.
"""

from collections.abc import Callable
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from ase.data import atomic_numbers

from ..analysis.tracing import APART, atoms_of, in_place, named_anew
from ..distributed.gather import handed
from ..io.results import load, write
from ..model import Model
from .tomogram_schema import SeriesStage, TomogramJob

USUAL = 12.0  # Å³ of an atom, where there is no volume yet


def file_of(folder: Path, number: int) -> Path:
    """What stage `number`, from 0, was handed over, where its specimen is atoms."""
    return folder / f"before_stage_{number}.h5"


def hand_over(job: TomogramJob, folder: Path) -> Callable[[Model, int], None]:
    """Keeps the model that a stage begins with, from which it makes its atoms."""

    def keep(model: Model, number: int) -> None:
        if job.stage[number].elements:
            handed(partial(write, file_of(folder, number), overwrite=True), model)

    return keep


def entered(job: TomogramJob, folder: Path | None) -> Callable[[Model, int], Model]:
    """The model of the last stage with atoms for its specimen, where the stage wants some."""

    def change(model: Model, number: int) -> Model:
        stage = job.stage[number]
        if not stage.elements:
            return model
        known = None if folder is None else file_of(folder, number)
        return with_atoms(load(known) if known and known.exists() else model, stage)

    return change


def with_atoms(model: Model, stage: SeriesStage) -> Model:
    """The atoms of a volume, or those of the last stage named anew; of an empty volume as many as matter has in it."""
    specimen: Any = model.specimen
    elements = stage.elements or []
    if specimen.listed_atoms() is not None:
        atoms = named_anew(specimen, elements, (min(model.grid.pixel), *model.grid.pixel))
    elif float(jnp.max(specimen.potential)) > 0:
        atoms = atoms_of(specimen, elements, stage.threshold_volt, APART, smooth=max(specimen.voxel))
    else:
        count = max(1, int(specimen.potential.size * np.prod(specimen.voxel) / USUAL))
        numbers = [atomic_numbers[name] for name in islice(cycle(elements), count)]
        atoms = in_place(specimen, numbers, np.zeros((count, 3)))
    return eqx.tree_at(lambda m: m.specimen, model, atoms)
