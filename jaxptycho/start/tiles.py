"""Sums of the patterns over parts of the scan, in one read of the data.

A part holds enough electrons to locate the disc where a single pattern does not, and moves over
enough of the specimen to average its contrast.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..data import Dataset
from ..direct.processor import AbstractProcessor, Block, over

TILES = 5  # along each side of a scan
TILE_SHOTS = 16  # patterns that a tile holds at least


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
        flat = jnp.reshape(block.patterns, (len(tiles), -1)).astype(jnp.float32)
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


def tiles_of(
    positions: Float[np.ndarray, "shot 2"], side: int | None = None
) -> Int[np.ndarray, " shot"]:
    """Tile of every shot: strips of equal numbers of shots in y, each divided likewise in x.

    `side` × `side` tiles; without it up to `TILES` × `TILES` of at least `TILE_SHOTS` shots.
    """
    n = len(positions)
    if side is None:
        side = int(np.clip(np.sqrt(n / TILE_SHOTS), 1, TILES))
    strip = _parts(positions[:, 0], side)
    tile = np.zeros(n, int)
    for number in range(side):
        row = np.flatnonzero(strip == number)
        tile[row] = number * side + _parts(positions[row, 1], side)
    return tile


def _parts(values: Float[np.ndarray, " n"], count: int) -> Int[np.ndarray, " n"]:
    """Part of each value when sorted ones are divided into `count` parts of equal length."""
    part = np.zeros(len(values), int)
    part[np.argsort(values, kind="stable")] = np.arange(len(values)) * count // max(len(values), 1)
    return part
