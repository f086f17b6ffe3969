"""Multislice of low memory: the wave of `waves.multislice`, with fewer waves stored.

Both functions have derivatives in reverse mode only, computed in place slice by slice from the
last.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..kernels import convolve, match_vma, step
from .types import Index, Kernel, Kernels, Waves, Window
from .waves import Exit

Triple = tuple[Array, Array, Array]  # of waves, slices and kernel
Through = Callable[[Array, Array, Array], Array]

MIN_TRANSMISSION = 0.1  # for tracing a wave back: a lower one would amplify rounding errors


def multislice_sqrt(wave: Waves, slices: Window, kernel: Kernel | Kernels) -> Exit:
    """Wave of `multislice` with about 2√n stored waves instead of n, for one additional pass.

    Every √n-th wave is stored; the gradient recomputes the others from these (Griewank, Optim.
    Methods Softw. 1, 35 (1992)).
    """
    return _behind(_recomputed, wave, slices, kernel)


def multislice_reversible(wave: Waves, slices: Window, kernel: Kernel | Kernels) -> Exit:
    """Wave of `multislice` with only the last wave stored, for one additional pass.

    The gradient traces the wave back by P* and 1/t, which requires |P| = 1 (no band limit, no
    evanescent waves) and |t| > 0.1; otherwise it is NaN, never a wrong number, and so is the wave
    if |P| ≠ 1. Losses raise ValueError for such propagators (`inverse.memory`).
    """
    lossless = jnp.abs(_power(kernel) - 1) < 1e-3
    return _behind(_traced_back, wave, slices, jnp.where(lossless, kernel, jnp.nan))


def _behind(through: Through, wave: Waves, slices: Window, kernel: Kernel | Kernels) -> Exit:
    """Exit wave by `through` of all slices but the last."""
    if slices.shape[0] > 1:
        wave = through(*match_vma(wave, slices, kernel))
    return Exit(wave, slices[-1])


def _zeros(count: int, wave: Array) -> Array:
    return jnp.broadcast_to(jnp.zeros_like(wave), (count, *wave.shape))


def _own(kernel: Array, n: Index) -> Array:
    return kernel[n] if kernel.ndim == 3 else kernel


def _onward(wave: Array, slices: Array, kernel: Array, n: Index) -> Array:
    """Wave entering slice n + 1."""
    return step(wave, slices[n], _own(kernel, n))


def _through(wave: Array, slices: Array, kernel: Array, first: Index, last: Index) -> Array:
    """Wave entering slice `last`, from the wave entering slice `first`."""

    return jax.lax.fori_loop(first, last, lambda n, wave: _onward(wave, slices, kernel, n), wave)


def _entering_last(wave: Array, slices: Array, kernel: Array) -> Array:
    return _through(wave, slices, kernel, 0, slices.shape[0] - 1)


def _back_through(
    n: Index, cotangents: Triple, entering: Array, slices: Array, kernel: Array
) -> Triple:
    """Cotangents of the wave before slice n, of slices and kernel, from those behind it."""
    cotangent, of_slices, of_kernel = cotangents
    back = jax.vjp(step, entering, slices[n], _own(kernel, n))[1]
    cotangent, of_slice, of_own = back(cotangent)
    of_kernel = of_kernel.at[n].set(of_own) if kernel.ndim == 3 else of_kernel + of_own
    return cotangent, of_slices.at[n].set(of_slice), of_kernel


def _trace(wave: Array, slices: Array, kernel: Array) -> tuple[Array, Triple]:
    entering = _entering_last(wave, slices, kernel)
    return entering, (entering, slices, kernel)


def _trace_back(seen: Triple, cotangent: Array) -> Triple:
    entering, slices, kernel = seen
    gaps = slices.shape[0] - 1

    def one_slice(i: Index, carry: Any) -> Any:
        (wave, cotangents) = carry
        n = gaps - 1 - i
        wave = convolve(wave, jnp.conj(_own(kernel, n))) * _inverse(slices[n])
        return wave, _back_through(n, cotangents, wave, slices, kernel)

    start = entering, (cotangent, jnp.zeros_like(slices), jnp.zeros_like(kernel))
    return jax.lax.fori_loop(0, gaps, one_slice, start)[1]


def _keep_some(wave: Array, slices: Array, kernel: Array) -> tuple[Array, Triple]:
    gaps = slices.shape[0] - 1
    length = math.isqrt(gaps)

    def stretch(k: Index, carry: Any) -> Any:
        wave, kept = carry
        first = k * length
        return _through(wave, slices, kernel, first, jnp.minimum(first + length, gaps)), kept.at[
            k
        ].set(wave)

    kept = _zeros(-(-gaps // length), wave)
    wave, kept = jax.lax.fori_loop(0, len(kept), stretch, (wave, kept))
    return wave, (kept, slices, kernel)


def _recompute(seen: Triple, cotangent: Array) -> Triple:
    kept, slices, kernel = seen
    gaps = slices.shape[0] - 1
    length = math.isqrt(gaps)

    def stretch(i: Index, carry: Any) -> Any:
        cotangents, between = carry
        k = len(kept) - 1 - i
        first = k * length
        count = jnp.minimum(length, gaps - first)

        def onward(j: Index, between: Array) -> Array:
            return between.at[j].set(_onward(between[j - 1], slices, kernel, first + j - 1))

        def backward(j: Index, cotangents: Any) -> Any:
            n = first + count - 1 - j
            return _back_through(n, cotangents, between[n - first], slices, kernel)

        between = jax.lax.fori_loop(1, count, onward, between.at[0].set(kept[k]))
        return jax.lax.fori_loop(0, count, backward, cotangents), between

    start = (cotangent, jnp.zeros_like(slices), jnp.zeros_like(kernel)), _zeros(length, cotangent)
    return jax.lax.fori_loop(0, len(kept), stretch, start)[0]


_traced_back = jax.custom_vjp(_entering_last)
_recomputed = jax.custom_vjp(_entering_last)
_traced_back.defvjp(_trace, _trace_back)
_recomputed.defvjp(_keep_some, _recompute)


def _power(values: Array) -> Array:
    return values.real**2 + values.imag**2


def _inverse(transmission: Array) -> Array:
    power = _power(transmission)
    return jnp.where(power > MIN_TRANSMISSION**2, jnp.conj(transmission) / power, jnp.nan)
