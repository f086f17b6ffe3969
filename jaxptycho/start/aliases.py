"""Frequencies of a scan with their aliases within the limit of the bright field."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Int

from ..direct.placement import place
from ..direct.scan_grid import ScanGrid
from .sidebands import CELL_STEP, LEAKAGE, LONGEST, RINGS, image_spectra, padded
from .superpixels import SuperpixelImages

MAX_Q = 512  # frequencies of the scan, fewer where they have many aliases, but
FEWEST_Q = 128
MAX_ALIASES = 2048  # of all of them
Q_STEP = 128  # numbers of frequencies and of aliases are padded to multiples, so that
ALIAS_STEP = 4  # few shapes are compiled


class AliasedSidebands(NamedTuple):
    """G(k, Q) in units of its rms, by frequencies Q of the scan and their aliases; padded by 0."""

    g: Complex[Array, "q cell"]
    k: Float[Array, "cell 2"]  # 1/Å (y, x)
    root: Float[Array, " cell"]  # √ of the pixels of a cell
    aliases: Float[Array, "q alias 2"]  # 1/Å (y, x), in the frame of the positions
    valid: Float[Array, "q alias"]  # 1, or 0 beyond the limit
    alias_ring: Int[Array, "q alias"]  # of |Q + K|
    q: Float[Array, "q 2"]  # 1/Å (y, x)
    used: Float[Array, " q"]  # 1, or 0 where padded
    ring: Int[Array, " q"]  # of |Q|
    wavelength: Float[Array, ""]  # Å
    radius: Float[Array, ""]  # 1/Å, of the aperture
    edge: Float[Array, ""]  # 1/Å, width of its edge


def aliased_sidebands(
    images: SuperpixelImages,
    radius: float,
    wavelength: float,
    shifts: Float[np.ndarray, "cell 2"] | None = None,
) -> AliasedSidebands:
    """Sidebands for an aperture of `radius` [1/Å]; `shifts` are those of `image_spectra`."""
    placement = place(images.positions)
    grid = placement.grid
    extent = math.sqrt(grid.area * math.prod(grid.shape))
    chosen = _chosen(grid, extent, math.pi * (2 * radius) ** 2 * grid.area)
    q = grid.frequencies().reshape(-1, 2)[chosen]
    aliases, valid = _aliases(q, grid, 2 * radius)
    g = image_spectra(images, placement, shifts, lambda g: g.reshape(len(g), -1)[:, chosen]).T
    g = g / max(float(np.sqrt(np.mean(np.abs(g) ** 2))), 1e-30)
    rows = Q_STEP * math.ceil(len(q) / Q_STEP)
    cells = CELL_STEP * math.ceil(len(images.k) / CELL_STEP)
    real = np.float32
    g = padded(np.ascontiguousarray(padded(g, rows).T), cells).T
    root = np.sqrt(images.mean / images.intensity)
    return AliasedSidebands(
        jnp.asarray(g, jnp.complex64),
        jnp.asarray(padded(images.k, cells), real),
        jnp.asarray(padded(root, cells), real),
        jnp.asarray(padded(aliases, rows), real),
        jnp.asarray(padded(valid, rows), real),
        jnp.asarray(padded(_rings(np.linalg.norm(aliases, axis=-1), valid), rows), jnp.int32),
        jnp.asarray(padded(q, rows), real),
        jnp.asarray(np.arange(rows) < len(q), real),
        jnp.asarray(padded(_rings(np.hypot(*q.T), np.ones(len(q), bool)), rows), jnp.int32),
        jnp.float32(wavelength),
        jnp.float32(radius),
        jnp.float32(math.hypot(images.width, LEAKAGE / extent)),
    )


def _chosen(grid: ScanGrid, extent: float, aliases: float) -> Int[np.ndarray, " q"]:
    """Evenly chosen frequencies of half of the plane, for a mean number of `aliases` of each.

    Without those at half of the sampling rate, where Q and −Q are aliases of one another.
    """
    q = grid.frequencies()
    length = np.hypot(q[..., 0], q[..., 1])
    ny, nx = grid.shape
    kept = length > LONGEST / extent
    kept[ny // 2 + 1 :, 0] = False
    if ny % 2 == 0:
        kept[ny // 2] = False
    if nx % 2 == 0:
        kept[:, -1] = False
    index = np.flatnonzero(kept)
    index = index[np.argsort(length.ravel()[index], kind="stable")]
    count = int(np.clip(MAX_ALIASES / aliases, FEWEST_Q, MAX_Q))
    return index[np.unique(np.linspace(0, len(index) - 1, count).round().astype(int))]


def _aliases(
    q: Float[np.ndarray, "q 2"], grid: ScanGrid, limit: float
) -> tuple[Float[np.ndarray, "q alias 2"], Bool[np.ndarray, "q alias"]]:
    """Frequencies Q + K, nearest to zero first, and those of them within the limit [1/Å]."""
    lattice = np.linalg.inv(grid.steps).T
    reach = np.ceil(limit * np.hypot(*grid.steps.T)).astype(int) + 1
    axes = (np.arange(-n, n + 1) for n in reach)
    k = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2) @ lattice
    every = q[:, None] + k
    length = np.linalg.norm(every, axis=-1)
    most = int((length < limit).sum(1).max(initial=1))
    nearest = np.argsort(length, 1)[:, : ALIAS_STEP * math.ceil(most / ALIAS_STEP)]
    chosen = np.take_along_axis(every, nearest[..., None], 1)
    return chosen, np.take_along_axis(length, nearest, 1) < limit


def _rings(length: Float[np.ndarray, "*n"], valid: Bool[np.ndarray, "*n"]) -> Int[np.ndarray, "*n"]:
    """Ring of every length, each of them with as many valid ones."""
    edges = np.quantile(length[valid], np.linspace(0, 1, RINGS + 1))[1:-1]
    return np.searchsorted(edges, length)
