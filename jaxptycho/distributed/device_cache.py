"""Cache of patterns on the devices, as integers, for data that fit.

Batches then contain only row numbers of the table (`Dataset.indexed`), which the step reads, so
that many steps are one call and the host sends almost nothing.
"""

import math
from collections.abc import Iterator
from functools import partial
from itertools import chain

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ..data import Batch, Dataset, stacked
from ..inverse.memory import device_memory
from .multihost import part

MAX_FRACTION = 0.25  # of a device's memory, for patterns
BLOCK = 1024  # patterns sent at once
TOGETHER = 1024  # shots that one call works off: few calls, and still a moment to be stopped in


def fits(data: Dataset) -> bool:
    """True if all patterns are of one type and fit into their part of the memory of each device.

    Not on a CPU, whose memory is that of the host.
    """
    memory = None if jax.default_backend() == "cpu" else device_memory()
    size = sum(data.n_shots) * math.prod(data.grid.shape) * data.kinds[0].itemsize
    return memory is not None and len(set(data.kinds)) == 1 and size <= MAX_FRACTION * memory


def pattern_table(data: Dataset, mesh: Mesh) -> jax.Array | None:
    """The patterns of all views [n, y, x] on every device of `mesh`, None where they do not fit;
    each process reads its part of them.
    """
    if not fits(data):
        return None
    whole = NamedSharding(mesh, P())
    spread = NamedSharding(mesh, P(mesh.axis_names))
    rank, of = part()
    first = 0
    shape = (sum(data.n_shots), *data.grid.shape)
    kind = data.kinds[0]
    found = jax.jit(lambda: jnp.zeros(shape, kind), out_shardings=whole)()
    size = -(-BLOCK // mesh.size) * mesh.size
    for view, count in enumerate(data.n_shots):
        for start in range(0, count, size):
            here = np.arange(start, min(start + size, count))
            # the last one is repeated
            padded = np.pad(here, (0, -len(here) % mesh.size), mode="edge")
            own = padded[rank * len(padded) // of : (rank + 1) * len(padded) // of]
            sent = jax.make_array_from_process_local_data(spread, data.patterns(view, own))
            found = _put(found, sent, np.int32(first), len(here))
            first = first + len(here)
    return found


def in_calls(batches: Iterator[Batch], steps: int) -> Iterator[Batch]:
    """Batches of an epoch of `steps`, stacked for as few equal calls as `TOGETHER` allows."""
    first = next(batches, None)
    if first is None:
        return
    calls = math.ceil(steps * len(first.shots) / TOGETHER)
    yield from stacked(chain([first], batches), shots=steps // calls * len(first.shots))


def attached(batch: Batch, table: jax.Array | None) -> Batch:
    """Batch with the patterns of its rows of `pattern_table`."""
    if table is None:
        return batch
    return eqx.tree_at(lambda b: b.counts.table, batch, table, is_leaf=lambda node: node is None)


@partial(jax.jit, donate_argnums=0, static_argnums=3)
def _put(table, block, first, count):
    return jax.lax.dynamic_update_slice_in_dim(table, block[:count], first, 0)
