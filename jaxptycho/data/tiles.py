"""Tiles of a scan: groups of neighbouring shots."""

import numpy as np
from jaxtyping import Float, Int

TILES = 5  # along each side of a scan
TILE_SHOTS = 16  # patterns that a tile holds at least


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
