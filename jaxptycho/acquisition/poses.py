"""Poses of a tomogram from the geometry of a series, for its alignment to start from."""

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, Float

from .belief import Belief
from .geometry import Exposures, target_position
from .precision import in_double_precision


@in_double_precision
def tomogram_poses(
    belief: Belief,
    exposures: Exposures,
    target: int,
    image_shifts: Float[ArrayLike, "tilt 2"],
) -> Float[jax.Array, "tilt 5"]:
    """Tilt, angles about x and z [rad] and shift (y, x) [Å] of every view, as of `Volume`.

    `image_shifts` [Å] are those that the exposures were made with. Tomograms have the tilt axis
    along y: their (y, x) is (x, y) of a series. The scan positions of a view are relative to its
    image shift, along and across the axis.
    """
    geometry = belief.mean
    tilts = jnp.arange(len(exposures.angle))
    place = jax.vmap(lambda k: target_position(geometry, exposures, target, k))(tilts)
    cos = jnp.cos(geometry.azimuth)
    sin = jnp.sin(geometry.azimuth)
    optics = geometry.matrix @ jnp.array([[cos, -sin], [sin, cos]])
    aimed = jnp.linalg.solve(optics, jnp.asarray(image_shifts, float).T).T
    angles = jnp.stack([exposures.angle + geometry.angle_errors] + 2 * [jnp.zeros(len(tilts))], -1)
    return jnp.concatenate([angles, place[:, :2] - aimed], -1)
