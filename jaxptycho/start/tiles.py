"""Sums of the patterns over parts of the scan, in one read of the data.

A part holds enough electrons to locate the disc where a single pattern does not, and moves over
enough of the specimen to average its contrast.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..data import Dataset
from ..direct.processor import AbstractProcessor, Block, over


class TileSums(AbstractProcessor):
    """Processor that adds up the patterns of each tile of a scan [tile, y, x].

    `tile_of_shot` is the tile of every shot of the scan; patterns keep the zero frequency in the
    corner.
    """

    tile_of_shot: Int[np.ndarray, " shot"]
    shape: tuple[int, int, int]

    def init(self) -> Float[Array, "tile y x"]:
        """Sums without any pattern."""
        return jnp.zeros(self.shape, jnp.float32)

    def update(self, state: Float[Array, "tile y x"], block: Block) -> Float[Array, "tile y x"]:
        """Sums with the patterns of a block."""
        tiles = jnp.asarray(self.tile_of_shot)[block.shots]
        member = (tiles[None] == jnp.arange(len(state))[:, None]) * block.weight
        seen = jnp.asarray(block.weight)[:, None] > 0
        flat = jnp.where(seen, jnp.reshape(block.patterns, (len(tiles), -1)), 0)
        flat = flat.astype(jnp.float32)
        added = jnp.matmul(member.astype(jnp.float32), flat, precision="highest")
        return state + jnp.reshape(added, state.shape)

    def merge(
        self, first: Float[Array, "tile y x"], second: Float[Array, "tile y x"]
    ) -> Float[Array, "tile y x"]:
        """Sums of the patterns of both."""
        return first + second

    def result(self, state: Float[Array, "tile y x"]) -> Float[np.ndarray, "tile y x"]:
        """Sums with the zero frequency in the middle."""
        return np.fft.fftshift(np.asarray(state, float), axes=(1, 2))


def tile_sums(
    data: Dataset, tiles: Int[np.ndarray, " shot"], view: int = 0
) -> Float[np.ndarray, "tile y x"]:
    """Sums of the patterns of each tile, zero frequency in the middle."""
    shape = (int(tiles.max()) + 1, *data.grid.shape)
    return over(data, TileSums(tiles.astype(np.int32), shape), view=view)[0]
