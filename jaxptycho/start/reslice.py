"""Change of the slices or modes of a model between the steps of a job."""

from dataclasses import replace

from ..model import Model
from ..parts.indexed import first_shot


def with_slices(model: Model, slices: int) -> Model:
    """The same specimen cut into `slices` equal slices; its projection is unchanged.

    The probe is brought to the plane where the first slice then acts.
    """
    specimen = model.specimen.with_slices(model.grid, slices)
    distance = float(first_shot(model.specimen).above - first_shot(specimen).above)
    probe = model.probe.propagate(model.grid, distance) if distance else model.probe
    return replace(model, specimen=specimen, probe=probe)


def with_modes(model: Model, modes: int) -> Model:
    """The same probe with `modes` incoherent modes, completed or cut; its power is unchanged."""
    return replace(model, probe=model.probe.with_modes(modes))
