"""Projected potential of thin slices from atoms, in the independent-atom approximation.

An atom is a sum of Gaussians (`scattering.gaussians`). The part of each that belongs to a slice
is given by `finite`, which integrates between the slice's faces, or by `infinite`, which assigns
an atom entirely to the slice that contains its centre (Kirkland 2010, §5.3–5.4). All functions
are differentiable in positions and Debye–Waller factors, except `infinite` in z. Images are
periodic with the array: an atom near one edge contributes at the opposite edge.

A Gaussian is separable, so the image of many is one product of a matrix of rows with one of
columns: 2·Y·X operations for each, at the speed of the device's matrix unit.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf
from jaxtyping import Array, Complex, Float, Int

from .scattering import VOLT_ANGSTROM2, Gaussians
from .types import Stack

CHUNK = 4096  # Gaussians in one product
Values = Array | np.ndarray | float
Erf = Callable[[Any], Any]


def finite(z: Values, width: Values, top: Values, bottom: Values, erf: Erf = erf) -> Any:
    """Fraction of a Gaussian e^{−width·k²} at height `z` [Å] between faces `top`, `bottom` [Å].

    Its density along z has the variance width/2π².
    """
    steepness = math.pi / width**0.5
    return (erf((bottom - z) * steepness) - erf((top - z) * steepness)) / 2


def infinite(z: Values, width: Values, top: Values, bottom: Values, erf: Erf = erf) -> Any:
    """Fraction 1 for a centre between the faces `top` and `bottom` [Å], else 0."""
    return ((top <= z) & (z < bottom)) * (0 * width + 1)


PROJECTIONS: dict[str, Callable[..., Any]] = {"finite": finite, "infinite": infinite}


class Blobs(NamedTuple):
    """Many Gaussians of few widths around few places, in V·Å³."""

    volume: Float[Array | np.ndarray, "... blob"]  # V·Å³
    place: Int[Array | np.ndarray, "... blob"]  # index of its place
    width: Int[Array | np.ndarray, "... blob"]  # index of its width


def slabs(
    positions: Float[Array, "atom 3"],
    debye_waller: Float[Array, " atom"],
    atoms: Gaussians,
    faces: Float[Array, "z 2"],
    shape: tuple[int, int],
    pixel: tuple[float, float],
    share: Callable[..., Any] = finite,
) -> Stack:
    """Potential [V·Å] projected within every slab, for atoms at (z, y, x) [Å].

    `debye_waller` are the B = 8π²⟨u²⟩ [Å²], `faces` the upper and lower face of each slab [Å].
    """
    width = jnp.asarray(atoms.width, positions.dtype) + debye_waller[:, None] / 4
    volume = VOLT_ANGSTROM2 * jnp.asarray(atoms.amplitude, positions.dtype)
    number = jnp.arange(width.size)

    def slab(own: Float[Array, "2"]) -> Float[Array, "Y X"]:
        part = volume * share(positions[:, :1], width, own[0], own[1])
        blobs = Blobs(part.ravel(), number // width.shape[1], number)
        return image(blobs, positions[:, 1:], width.ravel(), shape, pixel)

    return jax.lax.map(slab, faces)


def image(
    blobs: Blobs,
    places: Float[Array | np.ndarray, "place 2"],
    widths: Float[Array | np.ndarray, " width"],
    shape: tuple[int, int],
    pixel: tuple[float, float],
) -> Float[Array, "Y X"]:
    """Sum [V·Å] of Gaussians of spectrum volume·e^{−width·k²} at `places` (y, x) [Å].

    Band-limited to the frequencies of the grid, so that sums over pixels are exact for Gaussians
    of any width.
    """
    return of_spectrum(spectrum(blobs, places, widths, shape, pixel), shape, pixel)


def of_spectrum(
    spectrum: Complex[Array, "Y f"], shape: tuple[int, int], pixel: tuple[float, float]
) -> Float[Array, "Y X"]:
    """Image [V·Å] of a spectrum [V·Å³] on the frequencies of `rfft2`."""
    return jnp.fft.irfft2(spectrum, shape) / (pixel[0] * pixel[1])


def spectrum(
    blobs: Blobs,
    places: Float[Array | np.ndarray, "place 2"],
    widths: Float[Array | np.ndarray, " width"],
    shape: tuple[int, int],
    pixel: tuple[float, float],
) -> Complex[Array, "Y f"]:
    """Spectrum Σ volume·e^{−width·k² − 2πi k·place} [V·Å³] on the frequencies of `rfft2`.

    One real product over k_y, k_x ≥ 0 of the cosines and sines of all blobs determines the entire
    plane.
    """
    axes = [_waves(*axis) for axis in zip(shape, pixel, places.T, (widths, widths), strict=True)]

    def product(blobs: Blobs) -> Array:
        rows, columns = (wave[blobs.place] * size[blobs.width][:, None] for wave, size in axes)
        rows, columns = (
            v.reshape(len(v), -1) for v in (blobs.volume[:, None, None] * rows, columns)
        )
        return jnp.matmul(rows.T, columns, precision="highest")

    half = shape[0] // 2 + 1, shape[1] // 2 + 1
    found = _in_chunks(product, blobs, jnp.zeros((2 * half[0], 2 * half[1]), places.dtype))
    (cc, cs), (sc, ss) = found.reshape(2, half[0], 2, half[1]).swapaxes(1, 2)
    above = jax.lax.complex(cc - ss, -sc - cs)
    below = jax.lax.complex(cc + ss, sc - cs)
    return jnp.concatenate([above, below[(shape[0] - 1) // 2 : 0 : -1]])


def _in_chunks(product: Callable[[Blobs], Array], blobs: Blobs, total: Array) -> Array:
    """Sum of `product` over chunks of blobs, in the memory of one chunk."""
    if len(blobs.volume) <= CHUNK:
        return product(blobs)
    padding = -len(blobs.volume) % CHUNK

    def cut(values: Array | np.ndarray) -> Array:
        return jnp.pad(values, (0, padding)).reshape(-1, CHUNK)

    chunks = Blobs(*map(cut, blobs))

    def add(total: Array, chunk: Blobs) -> tuple[Array, None]:
        return total + product(chunk), None

    return jax.lax.scan(jax.checkpoint(add), total, chunks)[0]


def _waves(
    n: int,
    step: float,
    centres: Float[Array | np.ndarray, " place"],
    widths: Float[Array | np.ndarray, " width"],
) -> tuple[Float[Array, "place 2 f"], Float[Array, "width f"]]:
    """Factors cos and sin of 2πk·centre, and e^{−width·k²}.

    k ≥ 0 are the frequencies of `n` points, `step` [Å] apart.
    """
    k = jnp.arange(n // 2 + 1, dtype=widths.dtype)
    turns = k * (centres / (n * step))[:, None]
    # multiples of 2π would cost accuracy in single precision
    phase = 2 * jnp.pi * (turns - jnp.round(turns))
    both_signs = k < n / 2  # at Nyquist both signs coincide, and their sines cancel
    return jnp.stack([jnp.cos(phase), jnp.where(both_signs, jnp.sin(phase), 0)], 1), jnp.exp(
        -widths[:, None] * (k / (n * step)) ** 2
    )
