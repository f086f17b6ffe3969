"""Constraints of the probe: builders of `project(model) -> model`, see `constraints`."""

from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float

from ...model import Model
from ...parts.probe import Basis, Moments
from ...physics import aberrations
from ...physics.grids import Grid

Image = Float[Array, "y x"] | Bool[Array, "y x"]


def probe_power(model: Model, dose: float | None = None) -> Callable[[Model], Model]:
    """Scale the probe to Σ|ψ|² = `dose` [quanta per shot], by default that of `model`.

    One common factor: the ratios of dose between modes, shots or views are kept, as is a
    detector's gain.
    """
    required = model.probe.mean_dose(model.grid) if dose is None else dose

    def project(model: Model) -> Model:
        factor = required / jnp.maximum(model.probe.mean_dose(model.grid), 1e-30)
        return replace(model, probe=model.probe.scale_dose(factor))

    return project


def orthogonal_modes() -> Callable[[Model], Model]:
    """Mix the modes so that they are orthogonal, the strongest first; patterns are unchanged.

    Eigenvectors of the Gram matrix ⟨ψ_m|ψ_m′⟩ (Thibault & Menzel 2013), averaged over the shots
    of a relaxed probe.
    """
    return lambda model: replace(model, probe=model.probe.map_waves(orthogonalise))


def probe_aperture(semiangle_mrad: float) -> Callable[[Model], Model]:
    """Limit the probe's spectrum to a round aperture with a soft edge of one pixel.

    Each pass hardens the soft edge a little.
    """

    def project(model: Model) -> Model:
        return _times_spectrum(model, aberrations.aperture(model.grid, 1e-3 * semiangle_mrad))

    return project


def probe_spectrum_mask(mask: Image) -> Callable[[Model], Model]:
    """Multiply the probe's spectrum by `mask`, zero frequency in the corner."""
    return lambda model: _times_spectrum(model, mask)


def probe_support(radius_angstrom: float) -> Callable[[Model], Model]:
    """Limit the probe to a disc around the centre of its window, with a soft edge of one pixel."""
    return lambda model: _times(model, disc(model.grid, radius_angstrom))


def probe_mask(mask: Image) -> Callable[[Model], Model]:
    """Multiply the probe by `mask` in real space, the centre of the window at [N//2, N//2]."""
    return lambda model: _times(model, mask)


def orthogonalise(basis: Basis, moments: Moments) -> Basis:
    """Modes Σ_m U*_mn ψ_m with the eigenvectors U of the Gram matrix; Σ_m |ψ_m|² is kept."""
    gram = jnp.einsum("jk,jmyx,knyx->mn", moments.astype(basis.dtype), basis, jnp.conj(basis))
    vectors = jnp.linalg.eigh(gram)[1][:, ::-1]
    return jnp.einsum("mn,jmyx->jnyx", jnp.conj(in_phase(vectors)), basis)


def in_phase(vectors: Complex[Array, "m n"]) -> Complex[Array, "m n"]:
    """Eigenvectors (columns) with a positive largest entry, so orthogonal modes are unchanged."""
    largest = jnp.take_along_axis(vectors, jnp.argmax(jnp.abs(vectors), axis=0)[None], axis=0)
    return vectors * jnp.conj(largest) / jnp.abs(largest)


def disc(grid: Grid, radius: float) -> Float[Array, "y x"]:
    """Disc of `radius` [Å] about pixel [N//2, N//2]: 1 inside, 0 outside, edge of one pixel."""
    y, x = recentred(grid)
    distance = jnp.sqrt(y**2 + x**2)
    return jnp.clip((radius - distance) / max(grid.pixel) + 0.5, 0.0, 1.0)


def recentred(grid: Grid) -> tuple[Float[Array, "y 1"], Float[Array, "1 x"]]:
    """Coordinates (y, x) [Å] from pixel [N//2, N//2]."""
    y, x = (p * (jnp.arange(n) - n // 2) for n, p in zip(grid.shape, grid.pixel, strict=True))
    return y[:, None], x[None, :]


def _times(model: Model, mask: Array) -> Model:
    return replace(model, probe=model.probe.map_waves(lambda basis, _: basis * mask))


def _times_spectrum(model: Model, mask: Array) -> Model:
    def change(basis: Basis, _: Moments) -> Basis:
        at_corner = jnp.fft.ifftshift(basis, axes=(-2, -1))
        kept = jnp.fft.ifft2(mask * jnp.fft.fft2(at_corner))
        return jnp.fft.fftshift(kept, axes=(-2, -1))

    return replace(model, probe=model.probe.map_waves(change))
