"""What falls on the specimen."""

import abc
import math
from collections.abc import Mapping

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from ..physics import aberrations, waves
from ..physics.aberrations import cartesian
from ..physics.grids import Grid
from ..physics.types import Pair, Scalar, Waves
from .indexed import PerShot, PerView, Varying, plain


class AbstractProbe(eqx.Module):
    """A probe answers with the spectrum of its modes; their |…|² sum to the dose of a shot."""

    @abc.abstractmethod
    def spectrum(self, grid: Grid) -> Waves:
        """Spectra of the incoherent modes [√quanta], the probe's centre at the origin."""


class PixelProbe(AbstractProbe):
    """One complex number per pixel and mode, as seen: the probe's centre at [N//2, N//2]."""

    waves: Varying[Waves]  # √quanta

    def spectrum(self, grid):
        return waves.fourier(jnp.fft.ifftshift(self.waves, axes=(-2, -1)))

    def scale(self, grid):
        return {"waves": rms_amplitude(self.waves)}


class RelaxedProbe(AbstractProbe):
    """ψ_p = Σ_j c_{p,j} ψ_j: few basis waves, coefficients per shot.

    Orthogonal probe relaxation (Odstrčil et al., Optics Express 24, 8360 (2016)).
    """

    waves: Varying[Complex[Array, "j m y x"]]  # √quanta, centre at [N//2, N//2]
    coefficients: Varying[Float[Array, "j"] | Complex[Array, "j"]]

    def spectrum(self, grid):
        basis = waves.fourier(jnp.fft.ifftshift(self.waves, axes=(-2, -1)))
        return jnp.tensordot(self.coefficients.astype(basis.dtype), basis, 1)

    def scale(self, grid):
        return {"waves": rms_amplitude(self.waves)}


class AberratedProbe(AbstractProbe):
    """A round aperture and the aberrations of the lens, every number differentiable.

    `aberrations` maps names (`C10` = −defocus, `C12a`, `C12b` … `C56b`, Å; see
    `physics.aberrations.cartesian`) to values. `centre` is the middle of the bright-field
    disc (y, x) [rad], about which the aberrations are counted: it tilts the beam and leaves the
    probe in its place.
    """

    semiangle: Varying[Scalar]  # rad
    aberrations: dict[str, Varying[Scalar]]  # Å
    dose: Varying[Scalar]  # quanta per shot
    centre: Varying[Pair]  # rad

    def __init__(self, semiangle, aberrations: Mapping | None = None, dose=1.0, centre=(0.0, 0.0)):
        """`aberrations` may hold `defocus` (> 0 is underfocus) and polar pairs `C12`, `phi12`."""
        self.semiangle, self.dose = _real(semiangle), _real(dose)
        names = {} if aberrations is None else dict(aberrations)
        varying = {k: v for k, v in names.items() if isinstance(v, (PerShot, PerView))}
        fixed = cartesian({k: v for k, v in names.items() if k not in varying})
        self.aberrations = {k: _real(v) for k, v in sorted((fixed | varying).items())}
        self.centre = centre if isinstance(centre, (PerShot, PerView)) else jnp.asarray(centre, float)

    def spectrum(self, grid):
        amplitude = aberrations.aperture(grid, self.semiangle, self.centre)
        amplitude = amplitude * jnp.sqrt(self.dose / jnp.sum(amplitude**2))
        surface = aberrations.phase_surface(self.aberrations, grid, self.centre)
        return (amplitude * jnp.exp(-1j * surface))[None]

    def scale(self, grid):
        edge, step = jnp.max(plain(self.semiangle)), grid.wavelength * max(grid.dk)
        one_radian = {
            name: grid.wavelength / (2 * math.pi) * (n + 1) / edge ** (n + 1)
            for name in self.aberrations
            for n in (aberrations.order(name),)
        }
        dose = jnp.mean(plain(self.dose))
        return {"semiangle": step, "centre": step, "aberrations": one_radian, "dose": dose}


def rms_amplitude(probe_waves) -> Float[Array, ""]:
    """√(dose/N) [√quanta]: the amplitude of a probe spread evenly over its window."""
    values = plain(probe_waves)
    total = jnp.sum(jnp.abs(values) ** 2) / math.prod(values.shape[:-3])
    return jnp.sqrt(total / (values.shape[-1] * values.shape[-2]))


def _real(value):
    return value if isinstance(value, (PerShot, PerView)) else jnp.asarray(value, float)
