"""Gauge freedom of a tilt series: common motions of all views, which move the full specimen."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..physics.types import Numbers
from ..physics.volumes import rotation_matrix

Poses = Float[np.ndarray, "view 5"]  # tilt, angles about x and z [rad], shift (y, x) [Å]


def common_move(change: Poses, poses: Poses) -> Poses:
    """Part of a small `change` of `poses` that moves the full specimen, by least squares.

    A shift t gives τ_l = Π R_l t, a rotation about ω gives R_l exp[ω]: three numbers each, to
    first order.
    """
    shifts = np.asarray(jax.vmap(rotation_matrix)(jnp.asarray(poses[:, :3])), float)[:, 1:, :]
    turns = np.asarray(jax.vmap(_turned_by)(jnp.asarray(poses[:, :3])), float)
    # angles that do not vary cannot take part in a rotation
    free = np.any(change[:, :3], axis=0, keepdims=True)
    turns = turns * free.T
    return np.concatenate([_fitted(turns, change[:, :3]), _fitted(shifts, change[:, 3:])], 1)


def without_translation(
    shifts: Float[np.ndarray, "view 2"], tilts: Numbers
) -> Float[np.ndarray, "view 2"]:
    """Shifts (y, x) of views at `tilts` [rad], less that of the full specimen, τ_l = Π R_l t."""
    seen = np.zeros((len(shifts), 2, 3))
    seen[:, 0, 1] = 1
    seen[:, 1, 0] = np.sin(tilts)
    seen[:, 1, 2] = np.cos(tilts)
    return shifts - _fitted(seen, shifts)


def _fitted(seen, change):
    """Closest approach of `seen` [view, n, 3] of one vector to a change [view, n]."""
    vector = np.linalg.lstsq(seen.reshape(-1, 3), change.ravel(), rcond=None)[0]
    return seen @ vector


def _turned_by(euler):
    """Change of the three angles of a view by a rotation of the specimen about z, y, x.

    Shape [angle, axis].
    """
    here = rotation_matrix(euler)
    by_angle = jax.vmap(lambda d: _vector(d @ here.T), in_axes=2, out_axes=1)(
        jax.jacfwd(rotation_matrix)(euler)
    )
    return jnp.linalg.solve(by_angle, here)


def _vector(skew):
    """The rotation vector of a skew matrix on (z, y, x)."""
    return jnp.stack([skew[2, 1], skew[0, 2], skew[1, 0]])
