"""Linear maps of the plane that a scan and its specimen share."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..physics.grids import Grid
from ..physics.linear_maps import map_planes
from ..physics.types import Pair
from .specimen import AbstractSpecimen


def map_specimen(
    specimen: AbstractSpecimen, grid: Grid, matrix: Float[Array, "2 2"], about: Pair
) -> Any:
    """The specimen O(a + M⁻¹(r − a)): its features mapped by the `matrix` M about a point a [Å].

    Raises ValueError for a specimen that does not hold its slices as arrays, or that rotates.
    """
    if not specimen.held or specimen.rotates:
        raise ValueError(
            f"a {type(specimen).__name__} cannot be stretched or rotated with its scan; use a "
            "specimen of slices, or leave the map of the scan as it is"
        )
    pixel = jnp.asarray(grid.pixel)
    origin: Any = specimen.slices_origin(grid)
    middle = (jnp.asarray(about) - origin) / pixel
    names = [n for n in dict.fromkeys(specimen.held.values()) if getattr(specimen, n) is not None]
    mapped = [
        map_planes(getattr(specimen, n), matrix * pixel / pixel[:, None], middle) for n in names
    ]
    return eqx.tree_at(lambda s: [getattr(s, n) for n in names], specimen, mapped)
