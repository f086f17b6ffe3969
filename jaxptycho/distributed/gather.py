"""Gathering of sharded arrays, piece by piece: no host ever holds one that is too large for it."""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from .multihost import first, local, meet, run_on_rank0
from .sharding import on_the_host

T = TypeVar("T")
Place = tuple[slice, ...]


class ShardedLeaf:
    """Array of this shape and type, with `pieces` and their positions.

    The pieces can be read one time, after those of all arrays before it in its tree.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: np.dtype, pieces: Iterator[tuple[Place, np.ndarray]]
    ):
        self.shape = shape
        self.dtype = dtype
        self.pieces = pieces

    def whole(self) -> np.ndarray:
        """All of it in one array."""
        found = np.empty(self.shape, self.dtype)
        for place, piece in self.pieces:
            found[place] = piece
        return found


def on_process_zero(task: Callable[[Any], T], tree: Any) -> T | None:
    """Result of `task(tree)`, which process 0 runs with `ShardedLeaf` in place of sharded arrays.

    An error stops all processes.
    """
    leaves, structure = jax.tree.flatten(tree)
    pieces = {number: _pieces(leaf) for number, leaf in enumerate(leaves) if _in_pieces(leaf)}
    others = chain.from_iterable(pieces.values())

    def with_pieces():
        given = [
            ShardedLeaf(leaf.shape, leaf.dtype, pieces[number]) if number in pieces else local(leaf)
            for number, leaf in enumerate(leaves)
        ]
        try:
            return task(structure.unflatten(given))
        finally:
            _hand_over(others)  # pieces that were not read: the others wait until they are taken

    if not first():
        _hand_over(others)
    return run_on_rank0(with_pieces)


def gather_leaves(tree: Any) -> Any:
    """The tree with every `ShardedLeaf` array as one, in the memory of the host."""
    with on_the_host():
        return jax.tree.map(
            lambda leaf: jnp.asarray(leaf.whole()) if isinstance(leaf, ShardedLeaf) else leaf, tree
        )


def _hand_over(pieces: Iterator) -> None:
    for _ in pieces:
        pass


def _in_pieces(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and not leaf.is_fully_replicated


def _pieces(array: jax.Array) -> Iterator[tuple[Place, np.ndarray]]:
    """Every piece of an array and its place, in order; the first process gets them all, one at a
    time.
    """
    owners: dict[str, tuple[Place, int]] = {}
    for device, place in array.sharding.devices_indices_map(array.shape).items():
        known = owners.get(str(place))
        if known is None or device.process_index < known[1]:  # those of process 0 need not be sent
            owners[str(place)] = place, device.process_index  # pyright: ignore[reportArgumentType]
    own = {str(shard.index): shard for shard in array.addressable_shards}
    for name, (place, owner) in sorted(
        owners.items(), key=lambda item: [s.start or 0 for s in item[1][0]]
    ):
        mine = np.asarray(own[name].data) if owner == jax.process_index() else None
        if owner:
            shape = tuple(
                len(range(*s.indices(n))) for s, n in zip(place, array.shape, strict=True)
            )
            yield (
                place,
                _sent(np.empty(shape, array.dtype) if mine is None else mine, mine is not None),
            )
        elif mine is not None:
            yield place, mine


def _sent(piece: np.ndarray, mine: bool) -> np.ndarray:
    """Piece of the process that owns it, bit by bit, in all processes."""
    from jax.experimental.multihost_utils import broadcast_one_to_all

    meet()  # the first may be at work on the one before for long
    sent = np.asarray(broadcast_one_to_all(np.ravel(piece).view(np.uint8), is_source=mine))
    return sent.view(piece.dtype).reshape(piece.shape)
