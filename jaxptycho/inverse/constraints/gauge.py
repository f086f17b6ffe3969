"""Gauges: what no pattern shows, fixed by builders of `project(model) -> model`, see `constraints`.

What one part loses another gains, so predictions stay as they are (up to the sampling: a probe
must fade before the edges of its window and of its spectrum).
"""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...model import Model
from ...parts.detector import NearField
from ...parts.indexed import PerView, axis_size, select, vmap_shots
from ...parts.probe import Basis, Moments, mean_intensity
from ...physics import waves
from ...physics.grids import Grid
from ...physics.types import Intensity, Stack
from ..illumination import illumination
from .probe import recentred


def probe_centring():
    """The probe's centre of mass brought to [N//2, N//2], and the scan moved along with the probe."""

    def project(model):
        _far_field(model)

        def offset(basis: Basis, moments: Moments):
            return centre_of_mass(mean_intensity(basis, moments), model.grid)

        def centre(basis: Basis, moments: Moments):
            back = -offset(basis, moments)
            return jax.vmap(lambda modes: waves.shift(modes, back, model.grid))(basis)

        scan = model.scan.move(model.probe.reduce_waves(offset))
        return replace(model, probe=model.probe.map_waves(centre), scan=scan)

    return project


def position_recentring(model: Model):
    """Positions without their mean displacement from those of `model`; the specimen moves along.

    Only the specimen's origin changes, or a volume's shift, of which every view may have its own, so patterns stay
    exactly as they are.
    """

    def of_view(scan):
        return jnp.mean(vmap_shots(lambda own: own.position(), scan), axis=0)

    def mean(scan):
        views = axis_size(scan, PerView)
        if views == 1:
            return of_view(select(scan, PerView, 0))
        return PerView(jnp.stack([of_view(select(scan, PerView, view)) for view in range(views)]))

    start = mean(model.scan)

    def project(model):
        back = jax.tree.map(jnp.subtract, start, mean(model.scan))
        shared = not isinstance(model.specimen.position, PerView)
        if isinstance(back, PerView) and shared:  # what all views share moves by their mean
            back = jnp.mean(back.values, 0)
        return replace(model, scan=model.scan.move(back), specimen=model.specimen.move(back))

    return project


def phase_offset_removal():
    """Every slice without its mean phase over the illuminated area, a constant phase of the wave."""

    def project(model):
        _multiplies_phases(model)
        seen = illuminated(model)

        def without_mean(phase: Stack):
            return phase - jnp.sum(seen * phase, axis=(1, 2), keepdims=True)

        return replace(model, specimen=model.specimen.map_stacks(without_mean, ("phase",)))

    return project


def phase_ramp_removal():
    """The specimen without the linear ramp of its phase, which the probe takes over as a tilt.

    The ramp is fitted to the summed phase by least squares over the illuminated area and taken
    from all slices alike. The tilted beam wanders on its way down, so slices below the first
    are moved along (`beam_drift`), which is exact behind a Fresnel propagator.
    """

    def project(model):
        _multiplies_phases(model)
        specimen, grid = model.specimen, model.grid
        if specimen.shapes(grid).period is not None:
            raise ValueError(
                "a periodic specimen has no free phase ramp; leave this constraint out"
            )
        stack = specimen.stack()
        n, unit = stack.shape[0], specimen.radians(grid)
        seen = illuminated(model)
        y, x = coordinates(stack.shape[1:], seen, grid)
        tilt = fitted_tilt(jnp.sum(unit * stack, axis=0), seen, (y, x))
        ramp = 2 * math.pi * (tilt[0] * y + tilt[1] * x) / n
        flat = specimen.map_stacks(lambda phase: phase - ramp / unit, ("phase",))
        if n > 1:
            _far_field(model)
            drifts = beam_drift(specimen.thicknesses(grid), tilt, grid)
            flat = flat.map_stacks(lambda slices: move_slices(slices, drifts, grid))
        y, x = recentred(grid)
        taken = jnp.exp(2j * math.pi * (tilt[0] * y + tilt[1] * x))
        probe = model.probe.map_waves(lambda basis, _: basis * taken)
        return replace(model, specimen=flat, probe=probe)

    return project


def centre_of_mass(intensity: Intensity, grid: Grid) -> Float[Array, "2"]:
    """Centre of mass (y, x) [Å] from pixel [N//2, N//2]."""
    y, x = recentred(grid)
    total = jnp.maximum(jnp.sum(intensity), 1e-30)
    return jnp.stack([jnp.sum(y * intensity), jnp.sum(x * intensity)]) / total


def illuminated(model: Model) -> Float[Array, "Y X"]:
    """The illumination of the specimen, normalised to a sum of 1."""
    seen = illumination(model)
    return seen / jnp.maximum(jnp.sum(seen), 1e-30)


def coordinates(shape: tuple[int, ...], weight: Float[Array, "Y X"], grid: Grid):
    """Coordinates (y, x) [Å] of the specimen's pixels from the weighted centre."""
    y, x = (p * jnp.arange(n, dtype=weight.dtype) for n, p in zip(shape, grid.pixel, strict=True))
    return (y - jnp.sum(weight.sum(1) * y))[:, None], (x - jnp.sum(weight.sum(0) * x))[None, :]


def fitted_tilt(
    phase: Float[Array, "Y X"], weight: Float[Array, "Y X"], coordinates
) -> Float[Array, "2"]:
    """Slope (y, x) [1/Å] of the plane fitted to a phase by weighted least squares.

    `coordinates` are measured from the weighted centre, so the plane's height drops out.
    """
    y, x = coordinates
    normal = jnp.array([[jnp.sum(weight * a * b) for a in (y, x)] for b in (y, x)])
    return jnp.linalg.solve(normal, jnp.stack([jnp.sum(weight * a * phase) for a in (y, x)])) / (
        2 * math.pi
    )


def beam_drift(
    thickness: Float[Array, "z"], tilt: Float[Array, "2"], grid: Grid
) -> Float[Array, "z 2"]:
    """How far [Å] a beam has wandered at every slice when all of `tilt` [1/Å] is in the probe and
    no longer given to it slice by slice: λ Σ_{i<n} Δz_i g (N−1−i)/N."""
    n = thickness.shape[0]
    early = jnp.arange(n - 1, -1, -1) / n
    walked = jnp.cumsum(thickness * early) - thickness * early
    return grid.wavelength * walked[:, None] * tilt


def move_slices(stack: Stack, shifts: Float[Array, "z 2"], grid: Grid) -> Stack:
    """Every slice moved by its own shift (y, x) [Å], periodic at the edges."""
    ky, kx = (jnp.fft.fftfreq(n, p) for n, p in zip(stack.shape[1:], grid.pixel, strict=True))

    def move(image, shift):
        ramp = jnp.exp(-2j * math.pi * (ky[:, None] * shift[0] + kx[None, :] * shift[1]))
        return jnp.fft.ifft2(ramp * jnp.fft.fft2(image)).real

    return jax.vmap(move)(stack, shifts)


def _far_field(model):
    parts = jax.tree.leaves(model.detector, is_leaf=lambda part: isinstance(part, NearField))
    if any(isinstance(part, NearField) for part in parts):
        raise ValueError(
            "a hologram shows where the beam stands in its window; leave this constraint out in near field"
        )


def _multiplies_phases(model):
    if not model.specimen.phase_is_gauge:
        raise ValueError(
            f"the phase of a {type(model.specimen).__name__} is no factor e^(iφ) of the wave, so patterns show its "
            "offset and ramp; use a SliceStack or PotentialSlices, or leave this constraint out"
        )
