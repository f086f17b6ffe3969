"""Single sideband, optimum bright field, matched filter: sums of G(k, Q) against Γ(k, Q).

All are Σ_k W(k, Q) G(k, Q), with the weights
- single sideband, aberrations compensated: −iΓ*/|Γ| (Pennycook et al., Ultramicroscopy 151, 160
  (2015)), transfer ½Σ|Γ|/Σ|P|²;
- optimum bright field: −iΓ*/√Σ|Γ|², white noise (Ooe et al., Ultramicroscopy 220, 113133 (2021));
- matched filter: −iΓ*/(Σ|Γ|² + ε max), the least-squares answer for white noise.
With G normalised to |P|² = 1, a weak phase Φ gives G = iΦΓ, and counts have the variance ⟨I(k)⟩.
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Complex, Float

from .bright_field import CHUNK_BYTES, BrightFieldStack, strong_modulation, transform_chunks
from .image import DirectImage, warned
from .placement import AbstractPlacement
from .transfer import Optics, transfer

SIGNIFICANT = 1e-3  # |Γ| from which a pixel contributes to the single sideband
EPSILON = 1e-2  # of the matched filter, relative to the largest Σ|Γ|²


class SidebandSums(NamedTuple):
    """Sums over bright-field pixels k at every Q; `n` counts them with their relative noise."""

    matched: Complex[Array, "Y half"]  # Σ −iGΓ*
    unit: Complex[Array, "Y half"]  # Σ −iGΓ*/|Γ|
    power: Float[Array, "Y half"]  # Σ |Γ|²
    amplitude: Float[Array, "Y half"]  # Σ |Γ|
    matched_noise: Float[Array, "Y half"]  # Σ |Γ|² ⟨I⟩/|P|²
    unit_noise: Float[Array, "Y half"]  # Σ ⟨I⟩/|P|² where |Γ| is significant


def sideband_sums(
    stack: BrightFieldStack,
    placement: AbstractPlacement,
    optics: Optics,
    budget: int = CHUNK_BYTES,
) -> SidebandSums:
    """All sums of a stack, with `budget` bytes of transforms at once."""
    q = jnp.asarray(placement.grid.frequencies())
    relative = jnp.asarray(stack.mean / stack.intensity)
    k = jnp.asarray(stack.k)
    total = None
    for pixels, spectra in transform_chunks(stack, placement, budget):
        part = _sums(spectra, optics, k[pixels], q, relative[pixels])
        total = part if total is None else SidebandSums(*map(jnp.add, total, part))
    assert total is not None
    return total


@eqx.filter_jit
def _sums(spectra, optics, k, q, relative):
    def _add(total, one):
        real, imaginary, place, noise = one
        gamma = transfer(optics, place[None], q)[0]
        c, d = gamma.real.astype(real.dtype), gamma.imag.astype(real.dtype)
        power = c**2 + d**2
        used = power > SIGNIFICANT**2
        inverse = jnp.where(used, lax.rsqrt(jnp.where(used, power, 1.0)), 0.0)
        along, across = imaginary * c - real * d, -real * c - imaginary * d  # −iGΓ*
        terms = (
            along,
            across,
            along * inverse,
            across * inverse,
            power,
            power * inverse,
            power * noise,
            jnp.where(used, noise, 0.0),
        )
        return tuple(map(jnp.add, total, terms)), None

    zero = jnp.zeros(q.shape[:-1], spectra.real.dtype)
    each = spectra.real, spectra.imag, k, relative.astype(zero.dtype)
    sums = lax.scan(_add, (zero,) * 8, each)[0]
    return SidebandSums(lax.complex(*sums[:2]), lax.complex(*sums[2:4]), *sums[4:])


def single_sideband(
    stack: BrightFieldStack, placement: AbstractPlacement, optics: Optics
) -> DirectImage:
    """Single-sideband picture, its aberrations compensated; transfer ½Σ|Γ|/Σ|P|²."""
    return sideband_image(sideband_sums(stack, placement, optics), stack, placement)


def optimum_bright_field(
    stack: BrightFieldStack, placement: AbstractPlacement, optics: Optics
) -> DirectImage:
    """Optimum-bright-field picture, of white noise; transfer √(Σ|Γ|²/4Σ|P|²)."""
    return optimum_image(sideband_sums(stack, placement, optics), stack, placement)


def matched_filter(
    stack: BrightFieldStack,
    placement: AbstractPlacement,
    optics: Optics,
    epsilon: float = EPSILON,
) -> DirectImage:
    """Phase [rad] by the matched filter Σ −iGΓ*/(Σ|Γ|² + ε max Σ|Γ|²)."""
    return matched_image(sideband_sums(stack, placement, optics), stack, placement, epsilon)


def sideband_image(
    sums: SidebandSums, stack: BrightFieldStack, placement: AbstractPlacement
) -> DirectImage:
    """Single-sideband picture of sums."""
    gain = np.asarray(1 / (2 * _illumination(stack)) * np.ones(sums.power.shape))
    noise = np.asarray(sums.unit_noise)
    return _picture(
        sums.unit, gain, sums.amplitude, noise, stack, placement, "Single sideband", "relative"
    )


def optimum_image(
    sums: SidebandSums, stack: BrightFieldStack, placement: AbstractPlacement
) -> DirectImage:
    """Optimum-bright-field picture of sums."""
    power = np.asarray(sums.power, float)
    root = np.sqrt(4 * _illumination(stack) * power)
    gain = np.where(root > 0, 1 / np.where(root > 0, root, 1), 0)
    noise = np.asarray(sums.matched_noise)
    return _picture(
        sums.matched, gain, power, noise, stack, placement, "Optimum bright field", "relative"
    )


def matched_image(
    sums: SidebandSums,
    stack: BrightFieldStack,
    placement: AbstractPlacement,
    epsilon: float = EPSILON,
) -> DirectImage:
    """Matched-filter picture of sums."""
    if not epsilon > 0:
        raise ValueError(
            f"epsilon = {epsilon}; a positive fraction of the largest Σ|Γ|² is required"
        )
    power = np.asarray(sums.power, float)
    gain = 1 / (power + epsilon * power.max())
    noise = np.asarray(sums.matched_noise)
    return _picture(sums.matched, gain, power, noise, stack, placement, "Matched filter", "rad")


def _picture(total, gain, amplitude, noise, stack, placement, title, unit):
    spectrum = gain * np.asarray(total)
    per_count = placement.power / stack.intensity
    picture = DirectImage(
        np.fft.irfft2(spectrum, placement.grid.shape),
        placement.grid,
        gain * np.asarray(amplitude, float),
        gain**2 * noise * per_count,
        title,
        unit,
        strong_modulation(stack),
    )
    return warned(picture) if unit == "rad" else picture


def _illumination(stack):
    """Σ_k |P|² in units of |P|² inside the disc."""
    return float(stack.mean.sum() / stack.intensity)
