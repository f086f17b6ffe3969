"""Transform of superpixel images over a scan, whitened, for the likelihood of the optics."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int

from ..direct.placement import AbstractPlacement, edge_weight, place
from .superpixels import SuperpixelImages

RINGS = 16  # of |Q|
MAX_Q = 2048  # frequencies, those of the longest periods
Q_STEP = 512  # numbers of frequencies and of cells are padded to multiples, so that
CELL_STEP = 256  # few shapes are compiled
MAX_UPSAMPLE = 3
LONGEST = 1.5  # periods in the scan, below which edges and descan dominate
TAPER = 3  # positions at the edges of the scan
MOST_CUT = 0.25  # of the scan at an edge, for windows that move
LEAKAGE = 2.0  # width that the edges of a scan of unit extent give to a frequency
SPECTRA_BYTES = 2**27  # of images and their transforms that are in memory at once
DIM = 0.05  # of the disc's intensity, the least that a cell is divided by


class Sidebands(NamedTuple):
    """G(k, Q) of cells k over the noise of counts, in units of its rms; padded with zeros."""

    g: Complex[Array | np.ndarray, "cell q"]
    k: Float[Array | np.ndarray, "cell 2"]  # 1/Å (y, x)
    root: Float[Array | np.ndarray, " cell"]  # √ of the pixels of a cell
    q: Float[Array | np.ndarray, "q 2"]  # 1/Å (y, x), in the frame of the positions
    used: Float[Array | np.ndarray, " q"]  # 1, or 0 where padded
    power: Float[Array | np.ndarray, " q"]  # Σ_k |G|²
    ring: Int[Array | np.ndarray, " q"]  # of |Q|
    wavelength: Float[Array | np.ndarray, ""]  # Å
    radius: Float[Array | np.ndarray, ""]  # 1/Å, of the aperture
    edge: Float[Array | np.ndarray, ""]  # 1/Å, width of its edge


def sidebands_of(
    images: SuperpixelImages,
    radius: float,
    wavelength: float,
    shifts: Float[np.ndarray, "cell 2"] | None = None,
) -> Sidebands:
    """Sidebands within the limit 2α/λ of the bright field, for an aperture of `radius` [1/Å].

    `shifts` are those of `image_spectra`.
    """
    coarse = place(images.positions).grid
    upsample = math.ceil(4 * radius * math.sqrt(coarse.area) - 1e-6)
    upsample = int(np.clip(upsample, 1, MAX_UPSAMPLE))
    placement = place(images.positions, None, upsample)
    q = placement.grid.frequencies()
    length = np.hypot(q[..., 0], q[..., 1])
    extent = math.sqrt(coarse.area * math.prod(coarse.shape))
    kept = (length < 2 * radius) & (length > LONGEST / extent)
    kept[:, 0] &= q[:, 0] @ placement.grid.steps[0] > 0  # the others are complex conjugates
    index = np.flatnonzero(kept)
    index = index[np.argsort(length.ravel()[index], kind="stable")][:MAX_Q]
    if not len(index):
        raise ValueError(
            f"no period between 1/2 of {1 / radius:.3g} Å, the limit of the bright field, and the "
            f"extent of the scan of {extent:.3g} Å; check semiangle_mrad and the scan's step"
        )
    n = len(index)
    columns = Q_STEP * math.ceil(n / Q_STEP)
    chosen = image_spectra(images, placement, shifts, lambda g: g.reshape(len(g), -1)[:, index])
    cells = len(images.k)
    rows = CELL_STEP * math.ceil(cells / CELL_STEP)
    g = np.zeros((rows, columns), np.complex64)
    g[:cells, :n] = chosen / max(float(np.sqrt(np.mean(np.abs(chosen) ** 2))), 1e-30)
    frequencies = np.resize(q.reshape(-1, 2)[index], (columns, 2))
    edges = np.quantile(length.ravel()[index], np.linspace(0, 1, RINGS + 1))[1:-1]
    ring = np.searchsorted(edges, np.hypot(*frequencies.T))
    real = np.float32
    return Sidebands(
        g,
        padded(images.k, rows).astype(real),
        padded(np.sqrt(images.mean / images.intensity), rows).astype(real),
        frequencies.astype(real),
        (np.arange(columns) < n).astype(real),
        np.asarray(np.sum(np.abs(g) ** 2, 0), real),
        ring.astype(np.int32),
        np.asarray(wavelength, real),
        np.asarray(radius, real),
        np.asarray(math.hypot(images.width, LEAKAGE / extent), real),
    )


def some_frequencies(bands: Sidebands) -> Sidebands:
    """Sidebands of some frequencies of all lengths: `Q_STEP` of them."""
    stride = len(bands.q) // Q_STEP
    return _chosen(bands, slice(0, stride * Q_STEP, stride))


def parts_of(bands: Sidebands) -> list[Sidebands]:
    """Sidebands of `Q_STEP` frequencies each, all of one shape."""
    return [_chosen(bands, slice(i, i + Q_STEP)) for i in range(0, len(bands.q), Q_STEP)]


def _chosen(bands: Sidebands, which: slice) -> Sidebands:
    parts = {name: getattr(bands, name)[which] for name in ("q", "used", "power", "ring")}
    return bands._replace(g=bands.g[:, which], **parts)


def padded(values: np.ndarray, rows: int) -> np.ndarray:
    """Array with rows of zeros added, up to `rows`."""
    return np.concatenate([values, np.zeros((rows - len(values), *values.shape[1:]))])


def image_spectra(
    images: SuperpixelImages,
    placement: AbstractPlacement,
    shifts: Float[np.ndarray, "cell 2"] | None = None,
    part: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> Complex[np.ndarray, " cell *part"]:
    """Transform of whitened images; that `part` of it, as of some cells [n, Y, half], is kept.

    What all cells share (beam current, thickness) is removed: a weak phase moves counts within a
    pattern without changing their sum, as Σ_k Γ(k, Q) = 0. Every image shows the specimen moved by
    its `shifts` (y, x) [Å]: windows that move likewise see one part of the specimen, where those at
    rest, whose common part shrinks with the shift, make shifts look smaller than they are.
    """
    mean = images.mean
    total = images.counts.sum(1, dtype=float) / max(float(mean.sum()), 1e-30)
    weight = np.sqrt(np.maximum(mean, DIM * images.intensity * images.pixels))
    planes = 2 * images.counts.shape[0] + math.prod(placement.grid.shape)
    size = math.ceil(len(mean) / math.ceil(8 * len(mean) * planes / SPECTRA_BYTES))
    grid = place(images.positions).grid
    moves = np.zeros((len(mean), 2)) if shifts is None else shifts
    widest = np.abs(moves @ np.linalg.inv(grid.steps)).max(0)
    found = []
    for start in range(0, len(mean), size):
        cells = slice(start, start + size)
        values = (images.counts[:, cells] - total[:, None] * mean[cells]) / weight[cells]
        values *= _windows(images.positions, grid, moves[cells], widest)
        spectra = placement.transform(jnp.asarray(values, jnp.float32))
        found.append(part(np.asarray(spectra)))
    return np.concatenate(found)


def _windows(positions, grid, shifts, widest):
    """Weight [shot, cell] of every shot, zero at the edges of the scan.

    `widest` are the largest shifts of all cells, in entries along rows and columns of `grid`.
    """
    index = (positions - grid.origin) @ np.linalg.inv(grid.steps)
    moved = shifts @ np.linalg.inv(grid.steps)
    weight = np.ones((len(positions), len(moved)))
    for axis, size in enumerate(grid.shape):
        margin = min(float(widest[axis]), MOST_CUT * size)
        place_in_window = index[:, axis, None] - np.clip(moved[:, axis], -margin, margin) - margin
        weight *= edge_weight(place_in_window, size - 2 * margin, TAPER)
    return weight


def ring_power(bands: Sidebands) -> Float[np.ndarray, " ring"]:
    """Mean |G|² per cell in every ring: the noise variance σ², without an object."""
    used = np.asarray(bands.used)
    ring = np.asarray(bands.ring)
    cells = max(1, int(np.sum(np.asarray(bands.root) > 0)))
    power = np.bincount(ring, np.asarray(bands.power) * used, RINGS)
    return (power / np.maximum(cells * np.bincount(ring, used, RINGS), 1)).astype(np.float32)
