"""Patterns that stay on the devices: copied there once, as the integers that they are, where they fit.

Batches then say only which rows of the table they are (`Dataset.indexed`), and the step takes these, so that many steps
are one call and the host sends next to nothing.
"""

import math
from collections.abc import Iterator
from itertools import chain

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ..data import Batch, Dataset, stacked
from ..inverse.memory import device_memory

SHARE = 0.25  # of a device's memory, that patterns may take
BLOCK = 1024  # patterns sent at once
TOGETHER = 1024  # shots that one call works off: few calls, and still a moment to be stopped in


def fits(data: Dataset) -> bool:
    """Whether all patterns are of one type and take no more than their share of each device.

    A CPU has them at hand in any case.
    """
    memory = None if jax.default_backend() == "cpu" else device_memory()
    size = sum(data.n_shots) * math.prod(data.grid.shape) * _kinds(data)[0].itemsize
    return memory is not None and len(set(_kinds(data))) == 1 and size <= SHARE * memory


def table(data: Dataset, mesh: Mesh) -> jax.Array | None:
    """The patterns of all views [n, y, x] on every device of `mesh`, None where they do not fit."""
    if not fits(data):
        return None
    where, first = NamedSharding(mesh, P()), 0
    shape, kind = (sum(data.n_shots), *data.grid.shape), _kinds(data)[0]
    found = jax.jit(lambda: jnp.zeros(shape, kind), out_shardings=where)()
    for view, count in enumerate(data.n_shots):
        for start in range(0, count, BLOCK):
            block = data.patterns(view, np.arange(start, min(start + BLOCK, count)))
            sent = jax.make_array_from_callback(block.shape, where, lambda index, block=block: block[index])
            found, first = _put(found, sent, first), first + len(block)
    return found


def in_calls(batches: Iterator[Batch], steps: int) -> Iterator[Batch]:
    """The batches of an epoch of so many `steps`, stacked for as few and as equal calls as `TOGETHER` lets be."""
    first = next(batches, None)
    if first is None:
        return
    calls = math.ceil(steps * len(first.shots) / TOGETHER)
    yield from stacked(chain([first], batches), shots=steps // calls * len(first.shots))


def attached(batch: Batch, table: jax.Array | None) -> Batch:
    """The batch, which says rows of `table`, with it."""
    if table is None:
        return batch
    return eqx.tree_at(lambda b: b.counts.table, batch, table, is_leaf=lambda node: node is None)


def _put(table, block, first: int):
    return _put_at(table, block, np.int32(first))


@jax.jit(donate_argnums=0)
def _put_at(table, block, first):
    return jax.lax.dynamic_update_slice_in_dim(table, block, first, 0)


def _kinds(data: Dataset) -> list[np.dtype]:
    """The types of every view's patterns."""
    return [data.patterns(view, np.arange(1)).dtype for view in range(data.n_views)]
