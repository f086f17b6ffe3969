"""Tilt-coupled multislice: a few views of a flat specimen at small tilts, whose slices stay as they
are.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from ..model import Model
from ..parts.indexed import PerShot, PerView
from ..parts.propagator import Tilted
from ..parts.scan import FreeScan
from ..physics.types import Numbers
from ..physics.volumes import rotation_matrix

LARGEST = np.deg2rad(10.0)


def require_small(*angles) -> None:
    """Raise ValueError for `angles` [rad] to which a beam does not lean."""
    largest = max(float(np.abs(own).max()) for own in angles)
    if not largest <= LARGEST:
        raise ValueError(
            f"tilts of up to {np.rad2deg(largest):.4g}°; a tilted beam is valid up to "
            f"{np.rad2deg(LARGEST):.4g}°, rotate a Volume instead"
        )


def tilt_coupled(
    model: Model, tilts: Numbers, about_x: Numbers = 0.0, axis: float | None = None
) -> Model:
    """Return `model` with views tilted by `tilts` about y, then by `about_x` [rad], as a tilted
    beam.

    The specimen is not rotated: a tilted propagator (`Tilted`, per view, refined as
    `propagator.angles`) moves the wave from slice to slice by Δz tan θ, which is the shear of the
    slices. Positions, about the tilt axis at the height `axis` [Å] below the entrance face (by
    default half the thickness), become those at the entrance of the beam. The error is of second
    order in θ, except for the defocus, which changes by x tan θ across the field: a larger one
    requires `AberratedProbe` with its defocus PerView and PerShot, or a `Volume`.
    """
    tilts, about_x = (np.atleast_1d(np.asarray(angle, float)) for angle in (tilts, about_x))
    tilts, about_x = np.broadcast_arrays(tilts, about_x)
    require_small(tilts, about_x)
    if not isinstance(model.scan, FreeScan):
        raise ValueError(
            f"got a {type(model.scan).__name__}; expected a FreeScan, whose positions are moved"
        )
    height = float(jnp.sum(model.specimen.thicknesses(model.grid))) / 2 if axis is None else axis
    places = _of_views(model.scan.positions, len(tilts))
    slopes, entries = zip(*map(_entry, tilts, about_x, places, [height] * len(tilts)), strict=True)
    positions = PerView(PerShot(jnp.stack(entries)))
    angles = PerView(jnp.asarray(np.arctan(slopes), places.dtype))
    changed = FreeScan(positions), Tilted(angles, model.propagator)
    return eqx.tree_at(lambda m: (m.scan, m.propagator), model, changed)


def _entry(tilt: float, about_x: float, places, height: float):
    """Displacement of the beam (y, x) in the specimen for each Å of depth, and entry points.

    The entry points are those of beams at `places`.
    """
    # from the specimen (z, y, x) to the beam
    turn = np.asarray(rotation_matrix((tilt, about_x, 0.0)))
    slope = turn[0, 1:] / turn[0, 0]
    across = turn[1:, 1:].T - np.outer(slope, turn[1:, 0])
    return slope, places @ jnp.asarray(across.T, places.dtype) - jnp.asarray(
        height * slope, places.dtype
    )


def _of_views(positions, views: int):
    """The positions of every view [view, shot, 2]; shared ones for each."""
    values = positions.values
    if isinstance(positions, PerShot):
        return jnp.broadcast_to(values, (views, *values.shape))
    if len(values.values) != views:
        raise ValueError(
            f"{views} tilts came with the positions of {len(values.values)} views; give one for "
            "each"
        )
    return values.values
