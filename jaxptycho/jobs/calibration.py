"""Calibration of a geometry between the epochs of a job, with its report."""

import csv
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ..inverse.geometry import (
    Correction,
    block_of_shots,
    refine_geometry,
    require_separable,
)
from ..inverse.geometry_numbers import numbers_of, values_of
from ..inverse.step import copy_for_donation
from ..model import Model
from ..runs.batch_source import BatchSource
from ..start.measured import Measured

# unit in which a number is read, and its size in the unit in which it is stored
UNITS = {
    "scan.rotation": ("°", np.pi / 180),
    "scan.": ("", 1.0),
    "probe.semiangle": ("mrad", 1e-3),
    "probe.centre": ("mrad", 1e-3),
    "probe.": ("Å", 1.0),
    "specimen.thickness": ("Å", 1.0),
    "propagator.angles": ("mrad", 1e-3),
    "detector.shift": ("1/Å", 1.0),
    "detector.distance": ("Å", 1.0),
}
CALIBRATION = "calibration.csv"  # in the folder of a run
COLUMNS = ("step", "epoch", "name", "value", "error", "change", "unit")
SOURCE = "Gauss–Newton step beside specimen and probe"
Calibration = dict[str, tuple[Measured, float]]  # value and last change of numbers by name


def require_calibrated(
    model: Model, source: BatchSource, names: list[str], parts: tuple[str, ...]
) -> None:
    """Raise ValueError where the numbers `names` cannot be refined beside these `parts`."""
    if source.slabs > 1:
        raise ValueError(
            f"a calibration came with {source.slabs} slabs; run it with run.slabs = 1 first, or "
            "leave step.N.calibration out"
        )
    require_separable(model, source.data, names, _beside(names, parts))


def calibrate_model(
    model: Model,
    source: BatchSource,
    names: list[str],
    parts: tuple[str, ...],
    count: int,
    seed: tuple[int, ...],
    errors: bool,
) -> tuple[Model, Calibration]:
    """The model after a step of the named numbers; value and change of each in its unit.

    `parts` are unknown as well. Of the shots to learn from it uses `count`, neighbours of a random
    place. Standard errors are NaN unless `errors` are asked for.
    """
    data = source.data
    used = block_of_shots(data, source.learn[0], count, seed)
    beside = _beside(names, parts)
    every = len(used) == len(source.learn[0])
    new, correction = refine_geometry(
        model, data, names, eliminated=beside, shots=used, together=every, errors=errors
    )
    values = values_of(new, data, numbers_of(new, names))
    return copy_for_donation(new), _measured(correction, values)


def describe_calibration(numbers: Calibration) -> str:
    """Names and values of numbers in words, with the change where a value is unknown."""
    return ", ".join(
        f"{name} changed by {change:.4g} {value.unit}"
        if np.isnan(value.value)
        else f"{name} {value.amount}"
        for name, (value, change) in numbers.items()
    )


def append_numbers(file: Path, step: str, epoch: int, numbers: Calibration) -> None:
    """Append values, errors and changes after an epoch of a step to a table."""
    begins = not file.exists()
    with file.open("a", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        if begins:
            table.writerow(COLUMNS)
        for name, (value, change) in numbers.items():
            table.writerow([step, epoch, name, value.value, value.error, change, value.unit])


def _measured(correction: Correction, values: Float[np.ndarray, " k"]) -> Calibration:
    found = {}
    columns = zip(correction.names, values, correction.errors, correction.change, strict=True)
    for name, value, error, change in columns:
        prefix = next((prefix for prefix in UNITS if name.startswith(prefix)), "")
        unit, size = UNITS.get(prefix, ("", 1.0))
        found[name] = Measured(value / size, error / size, unit, SOURCE), change / size
    return found


def _beside(names: list[str], parts: tuple[str, ...]) -> tuple[str, ...]:
    """Parts that are unknown beside the numbers.

    Without the numbers themselves and the positions of shots, which keep their places relative to
    the map of a scan.
    """
    return tuple(part for part in parts if part not in names and part.split(".")[0] != "scan")
