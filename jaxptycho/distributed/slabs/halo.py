"""The rows that the slabs of neighbours lend: sent there by `ppermute`, their gradient sent back by
its transpose.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Num

SLABS = "slabs"


def with_halo(
    rows: Num[Array, "z Y X"], reach: int, slabs: int, outside: float
) -> Num[Array, "z _ X"]:
    """A slab with `reach` rows of its neighbours on either side, `outside` at the border."""
    return jnp.concatenate(
        [
            _received(rows, reach, slabs, 1, outside),
            rows,
            _received(rows, reach, slabs, -1, outside),
        ],
        1,
    )


def _received(rows, reach: int, slabs: int, step: int, outside: float):
    """`reach` rows of the slabs before (step 1) or behind (step −1); each hop is one further."""
    own = rows.shape[1]
    number = jax.lax.axis_index(SLABS)
    pieces = []
    for hop in range(1, math.ceil(reach / own) + 1):
        count = min(own, reach - (hop - 1) * own)
        sent = rows[:, own - count :] if step == 1 else rows[:, :count]
        pairs = [(i, i + step * hop) for i in range(slabs) if 0 <= i + step * hop < slabs]
        there = (number >= hop) if step == 1 else (number < slabs - hop)
        pieces.append(jnp.where(there, jax.lax.ppermute(sent, SLABS, pairs), outside))
    return jnp.concatenate(pieces[::-step], axis=1)
