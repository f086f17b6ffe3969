"""Modes of a partially coherent probe."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .grids import Grid
from .types import Pair, Scalar

MODE_POWER = 0.05  # power of every further mode, relative to the first
REACH = 0.75  # of the rim of the aperture, in which an extended source is expanded


def source_modes(
    grid: Grid, width: Scalar, rim: Scalar, middle: Pair, modes: int
) -> Float[Array, "mode y x"]:
    """Factors of a coherent spectrum that make it `modes` waves of an extended source.

    A Gaussian source of standard deviation `width` [Å] on the specimen multiplies ψ(k) ψ*(k′) by
    exp(−2π² width² |k − k′|²). Its eigenfunctions for a Gaussian weight are Hermite functions
    (Mehler's formula; Rasmussen & Williams, Gaussian Processes, eq. 4.40). `rim` and `middle` [1/Å]
    are those of the aperture. The squares sum to 1 in every pixel, so that the modes have the
    intensity of the coherent wave. 1, 3, 6, 10 … modes are complete orders.
    """
    factors = _expansion(grid, width, rim, middle, modes)
    return factors / jnp.sqrt(jnp.sum(factors**2, axis=0))


def source_share(
    grid: Grid, width: Scalar, rim: Scalar, middle: Pair, modes: int
) -> Float[Array, ""]:
    """Share of the intensity in the aperture that this many modes of a source account for."""
    ky, kx = grid.frequencies()
    inside = jnp.hypot(ky - middle[0], kx - middle[1]) <= rim
    held = jnp.sum(_expansion(grid, width, rim, middle, modes) ** 2, axis=0)
    return jnp.sum(held * inside) / jnp.sum(inside)


def _expansion(
    grid: Grid, width: Scalar, rim: Scalar, middle: Pair, modes: int
) -> Float[Array, "mode y x"]:
    """The strongest eigenfunctions, by their order in y and x, times the roots of their values."""
    powers = [(n - m, m) for n in range(modes) for m in range(n + 1)][:modes]
    orders = 1 + powers[-1][0] + powers[-1][1]
    ky, kx = (
        _hermite_functions(k - offset, width, REACH * rim, orders)
        for k, offset in zip(grid.frequencies(), middle, strict=True)
    )
    return jnp.stack([ky[i] * kx[j] for i, j in powers])


def _hermite_functions(k: Array, width: Scalar, reach: Scalar, orders: int) -> list[Array]:
    """Eigenfunctions of exp(−2π² width² (k − k′)²), times the roots of their eigenvalues."""
    a = 1 / reach**2
    b = 2 * jnp.pi**2 * width**2
    c = jnp.sqrt(a**2 + 2 * a * b)
    total = a + b + c
    k = jnp.clip(k, -2 * reach, 2 * reach)  # beyond the aperture nothing counts
    root = jnp.sqrt(2 / total) * jnp.pi * width
    found = [jnp.asarray((2 * c / total) ** 0.25 * jnp.exp((a - c) * k**2))]
    for n in range(1, orders):
        # of normalised Hermite polynomials, each with one more power of the root
        higher = jnp.sqrt(4 * c / n) * k * root * found[-1]
        lower = math.sqrt((n - 1) / n) * root**2 * found[-2] if n > 1 else 0.0
        found.append(jnp.asarray(higher - lower))
    return found


@partial(jax.jit, static_argnames="modes")
def make_modes(wave: Array | np.ndarray, modes: int) -> jax.Array:
    """The wave and its products with increasing powers of y and x, orthogonalised.

    Every further mode has 5 % of the power of the first. A stack of modes is completed or cut.
    """
    given = wave[None] if wave.ndim == 2 else wave
    first = given[0]
    power = jnp.abs(first) ** 2 / jnp.sum(jnp.abs(first) ** 2)
    y, x = (jnp.arange(n, dtype=power.dtype) for n in first.shape)
    y, x = y[:, None], x[None, :]
    y, x = y - jnp.sum(power * y), x - jnp.sum(power * x)
    y, x = y / jnp.sqrt(jnp.sum(power * y**2)), x / jnp.sqrt(jnp.sum(power * x**2))
    powers = [(n - m, m) for n in range(1, modes + 1) for m in range(n + 1)]
    basis = list(given[:modes])
    for i, j in powers[len(basis) - 1 : modes - 1]:
        new = first * y**i * x**j
        for old in basis:
            new = new - old * jnp.vdot(old, new) / jnp.vdot(old, old)
        basis.append(
            new * jnp.sqrt(MODE_POWER * jnp.vdot(first, first).real / jnp.vdot(new, new).real)
        )
    return jnp.stack(basis)


@jax.jit
def with_dose(modes: Any, dose: Scalar) -> jax.Array:
    """The modes scaled so that their intensities sum to `dose` [quanta]."""
    return modes * jnp.sqrt(dose / jnp.sum(jnp.abs(modes) ** 2))
