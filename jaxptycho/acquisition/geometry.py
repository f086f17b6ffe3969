"""Geometry of a tilt series at the microscope: where every target is at every tilt.

Specimen frame: x along the tilt axis, y across it, z along the beam, downstream; lengths in Å,
angles in rad. Target i is at

    X_i(θ) = R_x(θ + δ) (p_i − c) + c + d + v τ (1 − e^(−t/τ)) + w_i D

with the axis offset c of the branch (side of the series), the error d of the stage at this tilt,
its drift v (decaying with τ after the tilt, t seconds ago), a motion w_i per dose D, and the error
δ of the tilt reading. With z upstream and n₀ = y, z₀ = −z at no tilt this is the relation of
Eisenstein et al., Nat. Methods 20, 131 (2023): y(θ) = n₀ cos θ − z₀ sin θ. Exposures see
S Rot(ω) (X_x, X_y), S the matrix of the image shift and ω the azimuth of the tilt axis.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from .precision import in_double_precision

SETTLING_TIME = 40.0  # s, in which drift after a tilt decays; 20 to 60 s for goniometers
STEM = 1
TEM = -1


class SeriesGeometry(eqx.Module):
    """All unknowns of a series. Differentiable; also the layout of the state of its filter."""

    targets: Float[Array, "target 3"]
    axis_offsets: Float[Array, "2 2"]  # (y, z) of either branch
    stage: Float[Array, "tilt 3"]
    drift: Float[Array, "tilt 3"]  # Å/s, right after the tilt
    motion: Float[Array, "target 3"]  # Å per unit of dose
    angle_errors: Float[Array, " tilt"]
    azimuth: Float[Array, ""]
    matrix: Float[Array, "2 2"]


class Exposures(eqx.Module):
    """Tilts of a series, exposed or planned: reading, branch (0 or 1), and dose before the tilt.

    `delay` are the seconds between tilt and exposure. `focus_sign` is `STEM` or `TEM`: a specimen
    that moves downstream requires more underfocus of a lens above it, and less of one below.
    """

    angle: Float[Array, " tilt"]
    branch: Int[Array, " tilt"]
    delay: Float[Array, "target tilt"]
    dose: Float[Array, " tilt"]
    settling_time: float = SETTLING_TIME
    focus_sign: int = STEM

    @classmethod
    @in_double_precision
    def of(
        cls,
        angle: Float[ArrayLike, " tilt"],
        branch: Int[ArrayLike, " tilt"],
        delay: Float[ArrayLike, "target tilt"],
        dose: Float[ArrayLike, " tilt"],
        settling_time: float = SETTLING_TIME,
        focus_sign: int = STEM,
    ) -> "Exposures":
        """Exposures from plain arrays."""
        return cls(
            jnp.asarray(angle, float),
            jnp.asarray(branch, jnp.int32),
            jnp.asarray(delay, float),
            jnp.asarray(dose, float),
            settling_time,
            focus_sign,
        )


def rotate_about_x(points: Float[Array, "*s 3"], angle: Float[Array, ""]) -> Float[Array, "*s 3"]:
    """R_x(θ) of points (x, y, z): y cos θ + z sin θ, −y sin θ + z cos θ."""
    x, y, z = jnp.moveaxis(points, -1, 0)
    cos = jnp.cos(angle)
    sin = jnp.sin(angle)
    return jnp.stack([x, y * cos + z * sin, z * cos - y * sin], -1)


def target_position(
    geometry: SeriesGeometry,
    exposures: Exposures,
    target: Int[Array, ""] | int,
    tilt: Int[Array, ""] | int,
) -> Float[Array, "3"]:
    """X (x, y, z) [Å] of a target at a tilt, both given by their numbers."""
    offset = geometry.axis_offsets[exposures.branch[tilt]]
    centre = jnp.concatenate([jnp.zeros_like(offset[:1]), offset])
    angle = exposures.angle[tilt] + geometry.angle_errors[tilt]
    tau = exposures.settling_time
    drifted = tau * -jnp.expm1(-exposures.delay[target, tilt] / tau)
    return (
        rotate_about_x(geometry.targets[target] - centre, angle)
        + centre
        + geometry.stage[tilt]
        + geometry.drift[tilt] * drifted
        + geometry.motion[target] * exposures.dose[tilt]
    )


def aim(
    geometry: SeriesGeometry,
    exposures: Exposures,
    target: Int[Array, ""] | int,
    tilt: Int[Array, ""] | int,
) -> Float[Array, "3"]:
    """Image shift (two numbers) and change of defocus [Å] that centre and focus a target.

    Defocus > 0 is underfocus; it compensates the height X_z.
    """
    x, y, z = target_position(geometry, exposures, target, tilt)
    cos = jnp.cos(geometry.azimuth)
    sin = jnp.sin(geometry.azimuth)
    shift = geometry.matrix @ jnp.stack([x * cos - y * sin, x * sin + y * cos])
    return jnp.append(shift, exposures.focus_sign * z)
