"""Specimens of atoms as slices or voxels of their mean potential, so that they compare with any other."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from ..model import Model
from ..parts.atoms import Atoms
from ..parts.indexed import PerShot, PerView, select
from ..parts.specimen import PotentialSlices
from ..parts.volume import Volume
from .potential import atoms_potential


def in_slices(model: Model) -> Model:
    """The model with atoms as the potential [V] of the slices that its first view sees; any other as it is."""
    if not isinstance(model.specimen, Atoms):
        return model
    atoms = select(select(model.specimen, PerView, 0), PerShot, 0)
    potential = atoms.projected(model.grid.pixel) / atoms.thickness
    return _with(model, PotentialSlices(potential, None, atoms.thickness, atoms.origin, atoms.periodic))


def in_voxels(model: Model, shape: tuple[int, ...] | None = None, voxel=None) -> Model:
    """The model with atoms as a volume [V] about their tilt axis; any other as it is.

    By default with the pixels of the slices, which are cubes, and of their extent.
    """
    if not isinstance(model.specimen, Atoms):
        return model
    own: Atoms = model.specimen
    atoms = select(select(own, PerView, 0), PerShot, 0)
    if voxel is None or shape is None:
        voxel = (min(model.grid.pixel), *model.grid.pixel)
        shape = (int(np.ceil(atoms.n_slices * float(atoms.thickness) / voxel[0])), *atoms.shape)
    depth, rows, columns = shape
    height = atoms.height
    places = np.asarray(atoms.positions, float) - np.array([float(height), 0.0, 0.0])
    vibration, occupancy = (np.asarray(values, float) for values in (atoms.debye_waller, atoms.occupancy))
    potential = atoms_potential(
        np.array(atoms.numbers), places, vibration, (depth, rows, columns), voxel, atoms.parametrisation, occupancy
    )
    turned: dict[str, Any] = {"tilt": own.tilt, "angles": own.angles, "shift": own.shift}
    return _with(model, Volume(jnp.asarray(potential), voxel, taper=min(voxel), **turned))


def _with(model: Model, specimen) -> Model:
    return eqx.tree_at(lambda m: m.specimen, model, specimen)
