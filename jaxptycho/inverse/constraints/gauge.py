"""Gauges: ambiguities that patterns cannot resolve, fixed by builders of `project(model) -> model`.

A change of one part is compensated by another, so predictions are unchanged (up to the sampling:
a probe must fade before the edges of its window and of its spectrum). See `constraints`.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...model import Model
from ...parts.detector import NearField
from ...parts.indexed import PerView, Varying, axis_size, select, vmap_shots
from ...parts.probe import Basis, Moments, mean_intensity
from ...parts.scan import AbstractScan
from ...physics import waves
from ...physics.grids import Grid
from ...physics.types import Intensity, Stack
from ..illumination import illumination
from ..least_squares import fit_linear
from .probe import recentred


def probe_centring() -> Callable[[Model], Model]:
    """Move the probe's centre of mass to [N//2, N//2], and the scan with it."""

    def project(model: Model) -> Model:
        _far_field(model)

        def offset(basis: Basis, moments: Moments) -> Float[Array, "2"]:
            return centre_of_mass(mean_intensity(basis, moments), model.grid)

        def centre(basis: Basis, moments: Moments) -> Basis:
            back = -offset(basis, moments)
            return jax.vmap(lambda modes: waves.shift(modes, back, model.grid))(basis)

        scan = model.scan.move(model.probe.reduce_waves(offset))
        return replace(model, probe=model.probe.map_waves(centre), scan=scan)

    return project


def position_recentring(model: Model) -> Callable[[Model], Model]:
    """Remove the mean displacement of positions from those of `model`; the specimen moves too.

    Only the specimen's origin changes, or a volume's shift, which may be PerView, so patterns
    are exactly unchanged.
    """

    def of_view(scan: AbstractScan) -> Float[Array, "2"]:
        return jnp.mean(vmap_shots(lambda own: own.position(), scan), axis=0)

    def mean(scan: AbstractScan) -> Varying[Float[Array, "2"]]:
        views = axis_size(scan, PerView)
        if views == 1:
            return of_view(select(scan, PerView, 0))
        return PerView(jnp.stack([of_view(select(scan, PerView, view)) for view in range(views)]))

    start = mean(model.scan)

    def project(model: Model) -> Model:
        back = jax.tree.map(jnp.subtract, start, mean(model.scan))
        shared = not isinstance(model.specimen.position, PerView)
        if (
            isinstance(back, PerView) and shared
        ):  # a position that all views share moves by their mean
            back = jnp.mean(back.values, 0)
        return replace(model, scan=model.scan.move(back), specimen=model.specimen.move(back))

    return project


def phase_offset_removal() -> Callable[[Model], Model]:
    """Remove the mean phase of every slice over the illuminated area, a constant of the wave."""

    def project(model: Model) -> Model:
        _multiplies_phases(model)
        seen = illuminated(model)

        def without_mean(phase: Stack) -> Stack:
            return phase - jnp.sum(seen * phase, axis=(1, 2), keepdims=True)

        return replace(model, specimen=model.specimen.map_stacks(without_mean, ("phase",)))

    return project


def phase_ramp_removal() -> Callable[[Model], Model]:
    """Remove the linear ramp of the specimen's phase, which becomes a tilt of the probe.

    The ramp is fitted to the summed phase by least squares over the illuminated area and
    subtracted from all slices equally. The tilted beam drifts with depth, so slices below the
    first are moved with it (`beam_drift`), which is exact for a Fresnel propagator.
    """

    def project(model: Model) -> Model:
        _multiplies_phases(model)
        specimen = model.specimen
        grid = model.grid
        if specimen.shapes(grid).period is not None:
            raise ValueError(
                "a periodic specimen has no free phase ramp; leave this constraint out"
            )
        stack = specimen.stack()
        n = stack.shape[0]
        unit = specimen.radians(grid)
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


def coordinates(
    shape: tuple[int, ...], weight: Float[Array, "Y X"], grid: Grid
) -> tuple[Float[Array, "Y 1"], Float[Array, "1 X"]]:
    """Coordinates (y, x) [Å] of the specimen's pixels from the weighted centre."""
    y, x = (p * jnp.arange(n, dtype=weight.dtype) for n, p in zip(shape, grid.pixel, strict=True))
    return (y - jnp.sum(weight.sum(1) * y))[:, None], (x - jnp.sum(weight.sum(0) * x))[None, :]


def fitted_tilt(
    phase: Float[Array, "Y X"],
    weight: Float[Array, "Y X"],
    coordinates: tuple[Float[Array, "Y 1"], Float[Array, "1 X"]],
) -> Float[Array, "2"]:
    """Slope (y, x) [1/Å] of the plane fitted to a phase by weighted least squares.

    `coordinates` are relative to the weighted centre, so the offset of the plane vanishes.
    """
    y, x = coordinates
    plane = jnp.stack(jnp.broadcast_arrays(y, x))
    return fit_linear(plane, phase, weight) / (2 * math.pi)


def beam_drift(
    thickness: Float[Array, " z"], tilt: Float[Array, "2"], grid: Grid
) -> Float[Array, "z 2"]:
    """Drift [Å] of a beam at every slice when the full `tilt` [1/Å] moves from slices to probe.

    λ Σ_{i<n} Δz_i g (N−1−i)/N with the tilt g, removed from each of N slices in equal parts.
    """
    n = thickness.shape[0]
    early = jnp.arange(n - 1, -1, -1) / n
    walked = jnp.cumsum(thickness * early) - thickness * early
    return grid.wavelength * walked[:, None] * tilt


def move_slices(stack: Stack, shifts: Float[Array, "z 2"], grid: Grid) -> Stack:
    """Every slice moved by a separate shift (y, x) [Å], periodic at the edges."""
    ky, kx = (jnp.fft.fftfreq(n, p) for n, p in zip(stack.shape[1:], grid.pixel, strict=True))

    def move(image: Float[Array, "Y X"], shift: Float[Array, "2"]) -> Float[Array, "Y X"]:
        ramp = jnp.exp(-2j * math.pi * (ky[:, None] * shift[0] + kx[None, :] * shift[1]))
        return jnp.fft.ifft2(ramp * jnp.fft.fft2(image)).real

    return jax.vmap(move)(stack, shifts)


def _far_field(model: Model) -> None:
    parts = jax.tree.leaves(model.detector, is_leaf=lambda part: isinstance(part, NearField))
    if any(isinstance(part, NearField) for part in parts):
        raise ValueError(
            "a hologram depends on the position of the beam in its window; leave this constraint "
            "out in near field"
        )


def _multiplies_phases(model: Model) -> None:
    if not model.specimen.phase_is_gauge:
        raise ValueError(
            f"the phase of a {type(model.specimen).__name__} is no factor e^(iφ) of the wave, so "
            "patterns depend on its offset and ramp; use a SliceStack or PotentialSlices, or "
            "leave this constraint out"
        )
