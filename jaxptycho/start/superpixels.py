"""Bright field in superpixels: few images of a scan, for the fit of the optics.

Neighbouring pixels of the bright-field disc see nearly the same image; cells of several pixels hold
their sum. The disc is followed over the scan, between pixels by linear interpolation: where it
drifts by S·r from the pixels of a cell, the image is that of a scan turned and stretched by
1 + λ·df·S.
"""

import math
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from ..direct.bright_field import frequencies_from
from ..direct.processor import AbstractProcessor, Block
from ..direct.virtual_detector import SignalState, joined, no_signals, stored
from ..physics.grids import Grid

MAX_CELLS = 256  # superpixels of a disc
VALID = 0.5  # of a cell, the least that its sum is made of
RIM = 1.0  # pixels at the rim of the disc that are left out
FEWEST_PIXELS = 12


class SuperpixelImages(NamedTuple):
    """Counts of every shot in cells of the bright-field disc."""

    counts: Float[np.ndarray, "shot cell"]
    positions: Float[np.ndarray, "shot 2"]  # Å (y, x)
    cells: Int[np.ndarray, "cell 2"]  # row and column of every cell in their lattice
    k: Float[np.ndarray, "cell 2"]  # 1/Å (y, x) from the centre of the disc
    pixels: Int[np.ndarray, " cell"]  # number of pixels of a cell
    width: float  # 1/Å, of a cell

    @property
    def mean(self) -> Float[np.ndarray, " cell"]:
        """Mean counts of every cell."""
        return self.counts.mean(0, dtype=float)

    @property
    def intensity(self) -> float:
        """Mean counts of a pixel inside the disc."""
        return float(np.median(self.mean / self.pixels))


class Superpixels(AbstractProcessor):
    """Processor for the sums of `n_shots` patterns over cells; made by `superpixels_of`."""

    pixels: Int[np.ndarray, "cell m 2"]  # row and column in a pattern, zero frequency in the corner
    belongs: Bool[np.ndarray, "cell m"]  # False for what fills up a row
    cells: Int[np.ndarray, "cell 2"]
    k: Float[np.ndarray, "cell 2"]
    moves: Float[np.ndarray, "shot 2"]  # pixels (y, x) of the disc in every shot
    mask: Bool[np.ndarray, "y x"]  # zero frequency in the corner
    width: float = eqx.field(static=True)

    def init(self) -> SignalState:
        """State without a pattern."""
        return no_signals(len(self.moves), len(self.cells))

    def update(self, state: SignalState, block: Block) -> SignalState:
        """State with the sums of a block, NaN where most of a cell is hidden.

        Other hidden pixels are replaced by the mean of their cell.
        """
        moves = jnp.asarray(self.moves)[block.shots]
        whole = jnp.floor(moves).astype(jnp.int32)[:, :, None, None]
        rest = moves - jnp.floor(moves)
        shots = jnp.arange(len(moves))[:, None, None]
        patterns = jnp.where(self.mask, block.patterns, jnp.nan).astype(jnp.float32)
        ny, nx = self.mask.shape
        sums = weights = jnp.zeros((len(moves), len(self.cells)), jnp.float32)
        for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):  # pixels around, for linear interpolation
            y = (self.pixels[..., 0] + whole[:, 0] + dy) % ny
            x = (self.pixels[..., 1] + whole[:, 1] + dx) % nx
            values = patterns[shots, y, x]
            seen = jnp.isfinite(values) & self.belongs
            share = jnp.abs(1 - dy - rest[:, :1]) * jnp.abs(1 - dx - rest[:, 1:])
            sums += share * jnp.sum(jnp.where(seen, values, 0), -1)
            weights += share * jnp.sum(seen, -1, dtype=jnp.float32)
        valid = weights / jnp.sum(self.belongs, -1, dtype=jnp.float32)
        means = sums / jnp.maximum(valid, VALID)
        return stored(state, block, jnp.where(valid > VALID, means, jnp.nan))

    def merge(self, first: SignalState, second: SignalState) -> SignalState:
        """State of the shots of both."""
        return joined(first, second)

    def result(self, state: SignalState) -> SuperpixelImages:
        """Images of the shots that had a pattern."""
        seen = np.asarray(state.seen)
        counts = _filled(np.asarray(state.signals)[seen])
        positions = np.asarray(state.positions, float)[seen]
        size = np.asarray(self.belongs).sum(-1)
        return SuperpixelImages(counts, positions, self.cells, self.k, size, self.width)


def _filled(counts: Float[np.ndarray, "shot cell"]) -> Float[np.ndarray, "shot cell"]:
    """Counts with the mean image, as bright as the shot, where they are not known."""
    known = np.isfinite(counts)
    if known.all():
        return counts
    seen = np.where(known, counts, 0)
    mean = seen.sum(0, dtype=float) / np.maximum(known.sum(0), 1)
    brightness = seen.sum(1, dtype=float) / np.maximum(known @ mean, 1e-30)
    return np.where(known, seen, brightness[:, None] * mean).astype(counts.dtype)


def superpixels_of(
    grid: Grid,
    mask: Bool[np.ndarray, "y x"],
    radius: float,
    centres: Float[np.ndarray, "shot 2"],
    scale: float = 1.0,
) -> Superpixels:
    """Processor for a disc of `radius` pixels at `centres` (y, x) [pixels from the middle].

    `mask` is True where a pixel counts, zero frequency in the middle; the detector's frequencies
    are those of `grid` times `scale`. Raises ValueError for a disc of too few pixels.
    """
    middle = centres.mean(0)
    moves = (centres - middle).astype(np.float32)
    dk = np.asarray(grid.dk)
    offsets = frequencies_from(grid, tuple(middle * dk * grid.wavelength)) / dk  # pixels
    corner = np.fft.ifftshift(np.asarray(mask, bool))
    inside = (np.hypot(offsets[..., 0], offsets[..., 1]) < radius - RIM) & corner
    if inside.sum() < FEWEST_PIXELS:
        raise ValueError(
            f"the bright-field disc of {radius:.1f} pixels holds {inside.sum()} valid ones inside "
            f"its rim; at least {FEWEST_PIXELS} are required to see how images shift with the angle"
        )
    side = math.ceil(math.sqrt(inside.sum() / MAX_CELLS))
    pixels = np.argwhere(inside)
    places = offsets[inside]
    rows, cell, size = np.unique(
        np.floor(places / side + 0.5).astype(int), axis=0, return_inverse=True, return_counts=True
    )
    kept = size >= 0.5 * side**2
    used = kept[cell.ravel()]
    cell = (np.cumsum(kept) - 1)[cell.ravel()[used]]
    size = np.bincount(cell)
    sums = [np.bincount(cell, places[used, axis]) for axis in (0, 1)]
    k = np.stack(sums, -1) / size[:, None] * dk * scale
    cells = rows[kept] - rows[kept].min(0)
    belongs = np.arange(size.max()) < size[:, None]
    table = np.zeros((*belongs.shape, 2), np.int32)
    table[belongs] = pixels[used][np.argsort(cell, kind="stable")]
    return Superpixels(table, belongs, cells, k, moves, corner, side * scale * float(max(dk)))
