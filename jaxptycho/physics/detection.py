"""Counts of a camera from the intensity on it."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .grids import plane_frequencies
from .types import Intensity, Pattern, Scalar


def gaussian_mtf(shape: tuple[int, ...], sigma: Scalar) -> Float[Array, "y f"]:
    """Transfer function exp(−2π²σ²q²) of a Gaussian point spread of `sigma` [pixels]."""
    qy, qx = plane_frequencies(shape)
    return jnp.exp(-2 * jnp.pi**2 * sigma**2 * (qy**2 + qx**2))


def radial_mtf(shape: tuple[int, ...], mtf: Float[Array, " q"]) -> Float[Array, "y f"]:
    """Radial transfer function from its values at equal steps from 0 to Nyquist.

    The last value is continued beyond Nyquist.
    """
    qy, qx = plane_frequencies(shape)
    return jnp.interp(jnp.sqrt(qy**2 + qx**2), jnp.linspace(0.0, 0.5, mtf.shape[0]), mtf)


def filter_pattern(pattern: Intensity, mtf: Float[Array, "y f"]) -> Intensity:
    """The pattern convolved with the point spread function whose transform is `mtf`."""
    return jnp.fft.irfft2(mtf * jnp.fft.rfft2(pattern), s=pattern.shape)


def sum_pixels(pattern: Intensity, factor: int) -> Pattern:
    """Blocks of `factor`² pixels summed; each block is centred on its detector pixel.

    An even factor leaves an offset of half a model pixel, which a tilt of the illumination absorbs.
    """
    ny, nx = pattern.shape[0] // factor, pattern.shape[1] // factor
    rolled = jnp.roll(pattern, (factor // 2, factor // 2), axis=(0, 1))
    return rolled.reshape(ny, factor, nx, factor).sum((1, 3))


def crop(pattern: Intensity, shape: tuple[int, ...]) -> Pattern:
    """The `shape` pixels around the pattern's centre, which remains in the corner."""
    for axis, (n, size) in enumerate(zip(shape, pattern.shape, strict=True)):
        index = (jnp.arange(n) + n // 2) % n - n // 2
        pattern = jnp.take(pattern, index % size, axis=axis)
    return pattern
