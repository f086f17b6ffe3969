"""Arrays that differ from device to device within `jax.shard_map` (varying manual axes, VMA)."""

import jax.numpy as jnp
from jaxtyping import Array


def match_vma(*arrays: Array) -> tuple[Array, ...]:
    """Mark each array as varying over every mesh axis over which any of them varies.

    Primitives, loops and cotangents require operands that agree in this.
    """
    mark = sum(jnp.zeros_like(a, shape=(), dtype=bool) for a in arrays)
    return tuple(jnp.where(False, jnp.asarray(mark, a.dtype), a) for a in arrays)
