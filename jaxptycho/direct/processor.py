"""Processors: quantities computed from patterns block by block, in one read of the data.

A processor holds settings; what it accumulates is a state, a tree of arrays. `update` adds the
patterns of a block, `merge` combines the states of two parts of the data (associative and
commutative), so blocks may come in any order, from a file, a camera or several devices. A pattern
of weight 0 changes nothing. `over` runs any number of processors in one read.
"""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import partial, reduce
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Int, Num

from ..data import Dataset

BLOCK_BYTES = 2**25  # patterns that are on the device at once, as stored


class Block(eqx.Module):
    """Some patterns of one scan; a short last block is padded with `weight` 0."""

    shots: Int[Array | np.ndarray, " b"]
    positions: Float[Array | np.ndarray, "b 2"]  # Å (y, x)
    patterns: Num[Array | np.ndarray, "b y x"]  # counts, zero frequency in the corner
    weight: Float[Array | np.ndarray, " b"]


class AbstractProcessor(eqx.Module):
    """One quantity of a scan, accumulated over blocks; every method is pure."""

    @abstractmethod
    def init(self) -> Any:
        """State before the first block."""

    @abstractmethod
    def update(self, state: Any, block: Block) -> Any:
        """State with the patterns of `block` added."""

    @abstractmethod
    def merge(self, first: Any, second: Any) -> Any:
        """State of the patterns of both, which have no pattern in common."""

    @abstractmethod
    def result(self, state: Any) -> Any:
        """Quantity of all patterns of a state."""


def over(
    source: Dataset | Iterable[Block],
    *processors: AbstractProcessor,
    block: int | None = None,
    view: int = 0,
    devices: Sequence[jax.Device] | None = None,
) -> tuple[Any, ...]:
    """Results of `processors`, from one read of `source`: a dataset, or blocks of equal size.

    `block` is the number of patterns read at once (default: 32 MiB), `view` that of a tilt series.
    Blocks go to `devices` in turn (default: the first one), whose states are merged at the end.
    """
    devices = jax.local_devices()[:1] if devices is None else devices
    if isinstance(source, Dataset):
        source = read_blocks(source, block_size(source) if block is None else block, view)
    states = [jax.device_put(init_states(processors), device) for device in devices]
    for number, one in enumerate(source):
        i = number % len(devices)
        states[i] = update_states(processors, states[i], jax.device_put(one, devices[i]))
    states = [jax.device_put(state, devices[0]) for state in states]
    merged = reduce(partial(merge_states, processors), states)
    return tuple(p.result(state) for p, state in zip(processors, merged, strict=True))


def block_size(data: Dataset, budget: int = BLOCK_BYTES) -> int:
    """Number of patterns of a block that occupies `budget` bytes, at least one."""
    each = np.prod(data.grid.shape) * max(kind.itemsize for kind in data.kinds)
    return max(1, min(max(data.n_shots), int(budget // each)))


def read_blocks(data: Dataset, size: int, view: int = 0) -> Iterator[Block]:
    """Blocks of `size` patterns of a view in the order of the file, the last one padded."""
    if size < 1:
        raise ValueError(f"blocks of {size} patterns; give at least 1")
    n = data.n_shots[view]
    for start in range(0, n, size):
        shots = np.arange(start, start + size)
        inside = np.minimum(shots, n - 1)
        patterns = data.patterns(view, inside)
        positions = data.positions[view][inside]
        yield Block(inside, positions, patterns, (shots < n).astype(np.float32))


def init_states(processors: Sequence[AbstractProcessor]) -> tuple[Any, ...]:
    """States of several processors before the first block."""
    return tuple(p.init() for p in processors)


def update_states(
    processors: Sequence[AbstractProcessor], states: tuple[Any, ...], block: Block
) -> tuple[Any, ...]:
    """States with the patterns of a block, from one compiled program; `states` are used up."""
    return _update((tuple(processors), block), states)


def merge_states(
    processors: Sequence[AbstractProcessor], first: tuple[Any, ...], second: tuple[Any, ...]
) -> tuple[Any, ...]:
    """States of the patterns of both."""
    return tuple(p.merge(a, b) for p, a, b in zip(processors, first, second, strict=True))


@partial(eqx.filter_jit, donate="all-except-first")
def _update(kept, states):
    processors, block = kept
    return tuple(p.update(s, block) for p, s in zip(processors, states, strict=True))
