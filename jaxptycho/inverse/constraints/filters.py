"""Filters of a stack of slices, as transfer functions.

In plane the transform is the FFT and the stack is periodic, without effect if there is a margin
of vacuum. Along z it is the cosine transform (DCT-II): the stack is continued by its mirror
image, the faces do not mix, and the component at k_z = 0, the sum over slices that patterns
determine best, is unchanged.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax.scipy.fft import dct, idct
from jaxtyping import Array, Float

from ...physics.grids import plane_frequencies
from ...physics.types import Scalar, Stack


def filter_in_plane(stack: Stack, transfer: Float[Array, "*z y f"]) -> Stack:
    """Every slice filtered by `transfer`, one or one each, on the frequencies of
    `plane_frequencies`.
    """
    return jnp.fft.irfft2(transfer * jnp.fft.rfft2(stack), s=stack.shape[-2:])


def filter_along_z(stack: Stack, transfer: Float[Array, " z"]) -> Stack:
    """The stack filtered along z by `transfer` on the frequencies of `depth_frequencies`."""
    return idct(transfer[:, None, None] * dct(stack, axis=0, norm="ortho"), axis=0, norm="ortho")


def filter_volume(stack: Stack, transfer: Float[Array, "z y f"]) -> Stack:
    """The stack filtered by a transfer function of all three frequencies."""
    spectrum = dct(stack, axis=0, norm="ortho")
    return idct(filter_in_plane(spectrum, transfer), axis=0, norm="ortho")


def depth_frequencies(slices: int, spacing: Scalar) -> Float[Array, " z"]:
    """Frequencies k_z [1/Å] of the cosine transform, in half steps of the FFT's."""
    return jnp.arange(slices) / (2 * slices * spacing)


def volume_frequency(
    shape: tuple[int, ...], pixel: Sequence[Scalar], spacing: Scalar
) -> Float[Array, "z y f"]:
    """Modulus |k| [1/Å] on the frequencies of `filter_volume`."""
    ky, kx = plane_frequencies(shape[1:], pixel)
    return jnp.sqrt(depth_frequencies(shape[0], spacing)[:, None, None] ** 2 + ky**2 + kx**2)


def below(k: Float[Array, "*n"], cutoff: Scalar, edge: float) -> Float[Array, "*n"]:
    """Low-pass filter: 1 below the cut-off, 0 above, a raised cosine of width `edge` between."""
    if edge == 0:
        return (k <= cutoff).astype(k.dtype)
    return 0.5 - 0.5 * jnp.cos(math.pi * jnp.clip((cutoff - k) / edge + 0.5, 0, 1))


def gaussian_transfer(k2: Float[Array, "..."], sigma: float) -> Float[Array, "..."]:
    """Transfer function exp(−2π²σ²k²) of a Gaussian of standard deviation σ [Å]."""
    return jnp.exp(-2 * math.pi**2 * sigma**2 * k2)


def measurable(
    shape: tuple[int, ...],
    pixel: Sequence[Scalar],
    spacing: Scalar,
    semiangle: float,
    slab: float = 0.0,
) -> Float[Array, "z y f"]:
    """Transfer function `measured_part` of a view of semiangle α [rad], for `filter_volume`.

    Frequencies |k_z| ≤ `slab` [1/Å] count as measured.
    """
    ky, kx = plane_frequencies(shape[1:], pixel)
    kz = depth_frequencies(shape[0], spacing)[:, None, None]
    guard = 0.5 / max(shape[1] * pixel[0], shape[2] * pixel[1])
    return measured_part(_beyond(kz, slab), jnp.hypot(ky, kx), 1 / semiangle, guard)


def filter_periodic(stack: Stack, transfer: Float[Array, "z y f"]) -> Stack:
    """The stack, periodic also along z, filtered by a transfer function for `rfftn`."""
    return jnp.fft.irfftn(transfer * jnp.fft.rfftn(stack), s=stack.shape)


def measurable_turned(
    shape: tuple[int, ...],
    voxel: tuple[Scalar, ...],
    rotation: Float[Array, "3 3"],
    semiangle: float,
    slab: float = 0.0,
) -> Float[Array, "z y f"]:
    """Transfer function `measurable` of a view that sees a volume rotated by `rotation`.

    `rotation` acts on (z, y, x) and `semiangle` is in rad. On the frequencies of
    `filter_periodic`, which rotate as positions do.
    """
    ky, kx = plane_frequencies(shape[1:], voxel[1:])
    k = jnp.broadcast_arrays(jnp.fft.fftfreq(shape[0], voxel[0])[:, None, None], ky, kx)
    kz, ky, kx = jnp.einsum("ab,bzyx->azyx", rotation, jnp.stack(k), precision="highest")
    guard = 0.5 / max(n * p for n, p in zip(shape, voxel, strict=True))
    return measured_part(_beyond(kz, slab), jnp.hypot(ky, kx), 1 / semiangle, guard)


def measured_part(
    kz: Float[Array | np.ndarray, "..."],
    kr: Float[Array | np.ndarray, "..."],
    beta: Scalar,
    guard: Scalar,
) -> Float[Array, "..."]:
    """Measurable part of a view, W(k) = 1 − (2/π)·arctan(β² k_z²/k_r²) with β = 1/α.

    α [rad] is the semiangle; W is ½ at the edge of the missing cone, k_z = α k_r (Chen et al.,
    Science 372, 826 (2021)). `guard`² is added to k_r² [1/Å²]: best half the smallest frequency
    step of the specimen.
    """
    return 1 - 2 / math.pi * jnp.arctan((beta * kz) ** 2 / (kr**2 + guard**2))


def _beyond(k: Float[Array, "*n"], width: float) -> Float[Array, "*n"]:
    """Excess of |k| over `width`."""
    return jnp.maximum(jnp.abs(k) - width, 0)
