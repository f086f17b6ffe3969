"""Wigner distribution deconvolution: the object from G(k, Q), also where its phase is strong.

With the object's spectrum T, G(k, Q) is the convolution over k of T(k)T*(k−Q) with P(k)P*(k+Q).
Divided in the space of ρ conjugate to k by a Wiener filter, its entry at k = Q is T(Q)T*(0)
(Rodenburg & Bates, Phil. Trans. R. Soc. A 339, 521 (1992)).
"""

import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Complex, Float
from scipy.fft import next_fast_len

from .bright_field import BrightFieldStack, scan_transform
from .image import DirectImage
from .placement import AbstractPlacement
from .transfer import Optics, pupil, transfer

EPSILON = 0.01  # of the Wiener filter, relative to the largest |W|²
WIGNER_BYTES = 2**27  # of transforms over k that are in memory at once


def wigner_deconvolution(
    stack: BrightFieldStack,
    placement: AbstractPlacement,
    optics: Optics,
    epsilon: float = EPSILON,
    budget: int = WIGNER_BYTES,
) -> DirectImage:
    """Phase [rad] of the deconvolved object, relative to its mean; all of G is in memory.

    `epsilon` regularises the filter W*/(|W|² + ε max|W|²). The transfer and the noise are
    those of a weak phase. Pixels of `stack` beyond the disc contribute too
    (`bright_field_of(reach=…)`).
    """
    if not epsilon > 0:
        raise ValueError(
            f"epsilon = {epsilon}; a positive fraction of the largest |W|² is required"
        )
    box = _Box.of(stack)
    q = placement.grid.frequencies()
    shape = q.shape[:-1]
    spectra = np.array(scan_transform(stack, placement, slice(None)))
    entries = math.prod(placement.grid.shape)  # those without a shot hold the mean pattern
    spectra[:, 0, 0] = entries * stack.mean / stack.intensity
    flat = spectra.reshape(len(spectra), -1).T
    largest = float(np.sum(np.abs(np.asarray(pupil(optics, jnp.asarray(box.k)))) ** 2)) ** 2
    size = max(1, budget // (64 * math.prod(box.shape)))
    relative = jnp.asarray(stack.mean / stack.intensity)
    args = optics, jnp.asarray(stack.k), relative, box, epsilon * largest
    parts = [
        _deconvolved(flat[i : i + size], q.reshape(-1, 2)[i : i + size], *args)
        for i in range(0, len(flat), size)
    ]
    ahead, behind, gain, noise = (
        np.concatenate([p[i] for p in parts]).reshape(shape) for i in range(4)
    )
    phase = np.angle(_object(ahead, behind, placement.grid.shape))
    per_count = placement.power / stack.intensity
    scale = entries / ahead[0, 0].real
    return DirectImage(
        phase - phase.mean(),
        placement.grid,
        gain * scale,
        noise * per_count * scale**2,
        "Wigner distribution deconvolution",
    )


class _Box(eqx.Module):
    """Rectangle of detector pixels around the kept ones, and their places in it."""

    k: Float[np.ndarray, "v u 2"]
    index: np.ndarray  # flat place of every kept pixel
    shape: tuple[int, int] = eqx.field(static=True)
    dk: tuple[float, float] = eqx.field(static=True)

    @classmethod
    def of(cls, stack: BrightFieldStack) -> "_Box":
        dk = np.array(stack.grid.dk)
        first = stack.k.min(0)
        entry = np.rint((stack.k - first) / dk).astype(int)
        ny, nx = (int(next_fast_len(int(n) + 1) or n) for n in entry.max(0))
        axes = (first[a] + dk[a] * np.arange(n) for a, n in enumerate((ny, nx)))
        k = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
        return cls(k, entry[:, 0] * nx + entry[:, 1], (ny, nx), stack.grid.dk)


@eqx.filter_jit
def _deconvolved(spectra, q, optics, k, relative, box, floor):
    """T(Q)T*(0) and T*(−Q)T(0), the weak-phase transfer, and noise, for every Q of a batch."""
    places = jnp.asarray(box.k)
    here = pupil(optics, places)
    axes = (jnp.fft.fftfreq(n, d) for n, d in zip(box.shape, box.dk, strict=True))
    rho = jnp.stack(jnp.meshgrid(*axes, indexing="ij"), -1)  # Å

    def _one(spectrum, frequency):
        wave = jnp.fft.fft2(here * jnp.conj(pupil(optics, places + frequency)))
        wiener = jnp.conj(wave) / (jnp.abs(wave) ** 2 + floor) / wave.size
        ramp = jnp.exp(2j * jnp.pi * (rho @ frequency))
        # weights of the pixels in the sums over ρ
        at_q, at_zero = (
            jnp.fft.fft2(filtered).ravel()[box.index] for filtered in (wiener * ramp, wiener)
        )
        weight = (at_q - at_zero) / 2j
        weak = jnp.sum(weight * 1j * transfer(optics, k, frequency)).real
        noise = jnp.sum(jnp.abs(weight) ** 2 * relative)
        return jnp.sum(at_q * spectrum), jnp.sum(at_zero * spectrum), weak, noise

    return lax.map(lambda pair: _one(*pair), (spectra, q), batch_size=8)


def _object(
    ahead: Complex[np.ndarray, "Y half"],
    behind: Complex[np.ndarray, "Y half"],
    shape: tuple[int, int],
) -> Complex[np.ndarray, "Y X"]:
    """Object of its spectrum at +Q (`ahead`) and the conjugate of that at −Q (`behind`)."""
    nx = shape[1]
    full = np.zeros(shape, complex)
    full[:, : nx // 2 + 1] = ahead
    columns = np.arange(1, (nx + 1) // 2)
    full[:, -columns] = np.conj(np.roll(behind[::-1], 1, axis=0)[:, columns])
    return np.fft.ifft2(full)
