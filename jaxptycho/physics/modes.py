"""Orthogonal modes of a partially coherent probe."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .types import Scalar

MODE_POWER = 0.05  # power of every further mode, relative to the first


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


def with_dose(modes: Any, dose: Scalar) -> jax.Array:
    """The modes scaled so that their intensities sum to `dose` [quanta]."""
    return modes * jnp.sqrt(dose / jnp.sum(jnp.abs(modes) ** 2))
