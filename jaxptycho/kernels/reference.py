"""Every kernel in plain `jax.numpy`: the definition, and what computes where no accelerator does.

`ifft` is the inverse transform that an operation uses: `unscaled_ifft2` saves cuFFT a pass.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int

Planes = Complex[Array, "*b y x"]
Transform = Callable[[Planes], Planes]
MAX_TERMS_PER_PASS = 16  # of a sparse product, in one pass over memory


def jnp_fft2(wave: Planes) -> Planes:
    """Σ_r wave(r) e^{−2πi k·r}, zero frequency in the corner."""
    return jnp.fft.fft2(wave)


def jnp_ifft2(wave: Planes, ifft: Transform = jnp.fft.ifft2) -> Planes:
    """Inverse of `jnp_fft2`."""
    return ifft(wave)


def unscaled_ifft2(wave: Planes) -> Planes:
    """Inverse of `jnp_fft2` by a forward transform: cuFFT would scale in a pass of its own."""
    return jnp.conj(jnp.fft.fft2(jnp.conj(wave))) / math.prod(wave.shape[-2:])


def jnp_convolve(
    wave: Planes,
    kernel: Complex[Array, "*k y x"],
    ifft: Transform = jnp.fft.ifft2,
) -> Planes:
    """F⁻¹[kernel · F wave]."""
    return ifft(jnp_spread(kernel, wave) * jnp_fft2(wave))


def jnp_correlate(
    wave: Planes,
    kernel: Complex[Array, "*k y x"],
    ifft: Transform = jnp.fft.ifft2,
) -> Planes:
    """F[kernel · F⁻¹ wave], the transpose of `jnp_convolve`."""
    return jnp_fft2(jnp_spread(kernel, wave) * ifft(wave))


def jnp_step(
    wave: Planes,
    factor: Complex[Array, "*f y x"],
    kernel: Complex[Array, "*k y x"],
    ifft: Transform = jnp.fft.ifft2,
) -> Planes:
    """F⁻¹[kernel · F(factor · wave)], one slice of multislice."""
    return jnp_convolve(jnp_spread(factor, wave) * wave, kernel, ifft)


def jnp_step_back(
    wave: Planes,
    factor: Complex[Array, "*f y x"],
    kernel: Complex[Array, "*k y x"],
    entered: Planes,
    ifft: Transform = jnp.fft.ifft2,
) -> list[Array]:
    """Transpose of `jnp_step` by its wave and its factor, applied to the cotangent `wave`."""
    return gradients(jnp_correlate(wave, kernel, ifft), factor, entered)


def jnp_diffract(wave: Planes, factor: Complex[Array, "*f y x"]) -> Planes:
    """F(factor · wave)."""
    return jnp_fft2(jnp_spread(factor, wave) * wave)


def jnp_diffract_back(
    wave: Planes, factor: Complex[Array, "*f y x"], entered: Planes
) -> list[Array]:
    """Transpose of `jnp_diffract` by its wave and its factor, applied to the cotangent `wave`."""
    return gradients(jnp_fft2(wave), factor, entered)


def jnp_spread(shared: Complex[Array, "*s y x"], wave: Planes) -> Complex[Array, "*t y x"]:
    """Array that several planes of `wave` share, with axes of length 1 for these."""
    between = (1,) * (wave.ndim - shared.ndim)
    return shared.reshape(*shared.shape[:-2], *between, *shared.shape[-2:])


def gradients(cotangent: Planes, factor: Complex[Array, "*f y x"], entered: Planes) -> list[Array]:
    """Cotangents of wave and factor from that of their product: factor · c and Σ entered · c."""
    planes = range(factor.ndim - 2, entered.ndim - 2)
    return [jnp_spread(factor, cotangent) * cotangent, jnp.sum(entered * cotangent, planes)]


def jnp_spline_coefficients(values: Float[Array, "p q c"]) -> Float[Array, "p q c"]:
    """Coefficients of cubic B-splines along p and q, zero outside, that interpolate `values`."""
    p, q = (jnp.asarray(_inverse_spline_matrix(n), values.dtype) for n in values.shape[:2])
    by_rows = jnp.einsum("ab,bqc->aqc", p, values, precision="highest")
    return jnp.einsum("ab,pbc->pac", q, by_rows, precision="highest")


def _inverse_spline_matrix(n: int) -> np.ndarray:
    return np.linalg.inv((4 * np.eye(n) + np.eye(n, k=1) + np.eye(n, k=-1)) / 6)


def jnp_sparse_product(
    column: Int[Array, "g t row"], value: Float[Array, "g t row"], rows: Float[Array, "source c"]
) -> Float[Array, "g*row c"]:
    """Σ_t value[g, t]·rows[column[g, t]], some terms at a time: those that enter a loop together
    are computed before it, so more than one pass keeps memory small."""
    column, value = (a.swapaxes(0, 1).reshape(a.shape[1], -1) for a in (column, value))
    most = range(1, MAX_TERMS_PER_PASS + 1)
    at_once = max(n for n in most if len(column) % n == 0 and n < max(2, len(column)))

    @jax.checkpoint
    def add(total: Array, terms: Any) -> Any:
        pairs = zip(*terms, strict=True)
        taken = (v[:, None] * rows.at[c].get(mode="promise_in_bounds") for c, v in pairs)
        return sum(taken, total), None

    groups = tuple(a.reshape(-1, at_once, a.shape[1]) for a in (column, value))
    return jax.lax.scan(add, 0 * value[0][:, None] * rows[0], groups)[0]
