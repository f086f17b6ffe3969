"""Transfer of a weak phase to the patterns by an aberrated lens: Γ(k, Q).

With the probe's spectrum P = A e^{−iχ} and a weak object 1 + iφ, the pattern at the position r is
|P(k)|² + Σ_Q iΦ(Q) Γ(k, Q) e^{2πiQ·r}, where Γ = P*(k) P(k−Q) − P(k) P*(k+Q)
(Rodenburg, McCallum & Nellist, Ultramicroscopy 48, 304 (1993)). Γ(k, −Q) = −Γ*(k, Q).
"""

import math
from collections.abc import Mapping

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Complex, Float

from ..physics.aberrations import cartesian, gradient_at, phase_at
from ..physics.types import Scalar

ALIGNED_VALUES = 2**23  # of Γ(k, Q) in the transfer of aligned images
Vectors = Float[Array | np.ndarray, "*v 2"]  # frequencies (y, x) [1/Å]


class Optics(eqx.Module):
    """Aperture and aberrations of the probe-forming lens, differentiable in all but `wavelength`.

    `Optics.of(semiangle_mrad, wavelength, dk, defocus=…, C12=…, phi12=…)` accepts every name of
    `physics.aberrations.cartesian`. Frequencies are relative to the centre of the aperture.
    """

    aberrations: dict[str, Scalar]  # Å, cartesian components
    semiangle: Scalar  # rad
    edge: Scalar  # 1/Å, width of the aperture's linear edge, as of one pixel
    wavelength: float = eqx.field(static=True)  # Å

    @classmethod
    def of(
        cls, semiangle_mrad: float, wavelength: float, dk: float, **coefficients: float
    ) -> "Optics":
        """Optics of a semiangle [mrad], aberrations [Å] and the detector's step `dk` [1/Å]."""
        if not semiangle_mrad > 0:
            raise ValueError(f"semiangle_mrad = {semiangle_mrad}; a positive angle is required")
        named: dict[str, Scalar] = dict(cartesian(coefficients))
        return cls(named, 1e-3 * semiangle_mrad, dk, wavelength)

    @property
    def radius(self) -> Scalar:
        """Radius of the aperture [1/Å]."""
        return self.semiangle / self.wavelength

    def with_aberrations(self, coefficients: Mapping[str, Scalar]) -> "Optics":
        """The same aperture with other cartesian coefficients [Å]."""
        return Optics(dict(coefficients), self.semiangle, self.edge, self.wavelength)


def pupil(optics: Optics, k: Vectors) -> Complex[Array, "*v"]:
    """Spectrum P(k) = A e^{−iχ} of the probe at any frequencies, |P| = 1 inside the aperture."""
    ky, kx = k[..., 0], k[..., 1]
    chi = phase_at(optics.aberrations, ky, kx, optics.wavelength)
    amplitude = transmission(optics, k)
    return lax.complex(amplitude * jnp.cos(chi), -amplitude * jnp.sin(chi))


def transmission(optics: Optics, k: Vectors) -> Float[Array, "*v"]:
    """Amplitude A(k) of the aperture, 0 to 1 over its edge."""
    distance = jnp.sqrt(k[..., 0] ** 2 + k[..., 1] ** 2 + 1e-30)
    return jnp.clip((optics.radius - distance) / optics.edge + 0.5, 0.0, 1.0)


def transfer(
    optics: Optics, k: Float[Array | np.ndarray, "k 2"], q: Vectors
) -> Complex[Array, " k *v"]:
    """Γ(k, Q) of every bright-field pixel `k` at the frequencies `q`, for |P|² = 1."""
    k = jnp.reshape(k, (len(k),) + (1,) * (q.ndim - 1) + (2,))
    here = pupil(optics, k)
    return jnp.conj(here) * pupil(optics, k - q) - here * jnp.conj(pupil(optics, k + q))


def displacement(optics: Optics, k: Vectors) -> Float[Array, "*v 2"]:
    """Where the image of pixel k belongs [Å] (y, x): ∇χ/2π, of defocus −λ·defocus·k.

    The virtual image of the pixel is shifted by the negative of it.
    """
    return jnp.stack(gradient_at(optics.aberrations, k[..., 0], k[..., 1], optics.wavelength), -1)


def aligned_transfer(
    optics: Optics, k: Float[Array | np.ndarray, "k 2"], q: Float[Array | np.ndarray, "*v 2"]
) -> Complex[Array, "*v"]:
    """Mean transfer of the images of pixels `k`, aligned by their displacements: ⟨iΓe^{−i∇χ·Q}⟩.

    2 sin χ(Q) times the overlap of two apertures a distance Q apart for defocus and astigmatism.
    Evenly chosen pixels represent all of them where there are more than `ALIGNED_VALUES` values.
    """
    count = max(1, ALIGNED_VALUES // max(1, math.prod(q.shape[:-1])))
    chosen = np.unique(np.linspace(0, len(k) - 1, min(count, len(k))).round().astype(int))
    return _mean_aligned(optics, jnp.asarray(k)[chosen], jnp.asarray(q))


@eqx.filter_jit
def _mean_aligned(optics, k, q):
    moves = displacement(optics, k)

    def _add(total, one):
        place, move = one
        ramp = jnp.exp(-2j * jnp.pi * (q @ move))
        return total + 1j * transfer(optics, place[None], q)[0] * ramp, None

    zero = jnp.zeros(q.shape[:-1], jnp.result_type(q.dtype, jnp.complex64))
    total = lax.scan(_add, zero, (k, moves))[0]
    return total / jnp.sum(transmission(optics, k) ** 2)


def rotated(vectors: Vectors, angle: Scalar) -> Float[Array, "*v 2"]:
    """Vectors (y, x), rotated from x towards y by `angle` [rad]."""
    y, x = vectors[..., 0], vectors[..., 1]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([cos * y + sin * x, cos * x - sin * y], -1)
