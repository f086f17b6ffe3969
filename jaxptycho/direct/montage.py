"""Montage: counts deposited in real space at displaced positions, on a grid of any pixel.

Each count is divided among the four nearest pixels (bilinear shares), which keeps an image of few
counts positive.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Num

from .scan_grid import ScanGrid
from .transfer import Optics, displacement, transmission

MIN_COVERAGE = 0.05  # of the best covered pixel, below which a pixel has no value


class Montage(eqx.Module):
    """Counts deposited on every pixel, and the relative counts expected without a specimen."""

    counts: Float[Array, "Y X"]
    expected: Float[Array, "Y X"]


def empty_montage(grid: ScanGrid) -> Montage:
    """Montage without a deposit."""
    zero = jnp.zeros(grid.shape, jnp.float32)
    return Montage(zero, jnp.zeros(grid.shape, jnp.float32))


@eqx.filter_jit
def deposit_shots(
    state: Montage,
    positions: Float[Array | np.ndarray, "shot 2"],
    values: Num[Array | np.ndarray, "shot k"],
    weight: Float[Array | np.ndarray, " shot"],
    k: Float[Array | np.ndarray, "k 2"],
    optics: Optics,
    grid: ScanGrid,
    defocus_change: Float[Array | np.ndarray, " shot"] | None = None,
    expected: Float[Array | np.ndarray, " k"] | None = None,
) -> Montage:
    """Montage with `values` of frequency `k` [1/Å] deposited at r_p + ∇χ(k)/2π.

    `defocus_change` [Å] is the defocus of every shot relative to that of `optics`, `expected` the
    relative counts without a specimen (default: the transmission of the aperture).
    """
    k = jnp.asarray(k)
    moves = displacement(optics, k)
    expected = transmission(optics, k) ** 2 if expected is None else jnp.asarray(expected)
    change = jnp.zeros(len(positions)) if defocus_change is None else jnp.asarray(defocus_change)
    to_entries = jnp.linalg.inv(jnp.asarray(grid.steps))
    first = (jnp.asarray(positions) - grid.origin) @ to_entries
    by_pixel = moves @ to_entries
    by_defocus = -optics.wavelength * k @ to_entries

    def _add(total, one):
        place, pattern, share, defocus = one
        entries = place + by_pixel + defocus * by_defocus
        seen = jnp.where(share > 0, pattern, 0).astype(jnp.float32)
        pair = share * seen, (share * expected).astype(jnp.float32)
        return deposit(total, entries, *pair), None

    shots = first, jnp.asarray(values), jnp.asarray(weight, jnp.float32), change
    return lax.scan(_add, state, shots)[0]


def deposit(
    state: Montage,
    entries: Float[Array, "k 2"],
    values: Float[Array, " k"],
    expected: Float[Array, " k"],
) -> Montage:
    """Montage with `values` at fractional `entries` (row, column); those outside are left out."""
    ny, nx = state.counts.shape
    corner = jnp.floor(entries)
    rest = (entries - corner).astype(jnp.float32)
    corner = corner.astype(jnp.int32)
    counts, normal = state.counts, state.expected
    for dy in (0, 1):
        for dx in (0, 1):
            share = jnp.abs(1 - dy - rest[:, 0]) * jnp.abs(1 - dx - rest[:, 1])
            y, x = corner[:, 0] + dy, corner[:, 1] + dx
            inside = (y >= 0) & (y < ny) & (x >= 0) & (x < nx)
            y = jnp.where(inside, y, ny)
            counts = counts.at[y, x].add(share * values, mode="drop")
            normal = normal.at[y, x].add(share * expected, mode="drop")
    return Montage(counts, normal)


def intensity_scale(state: Montage) -> Float[np.ndarray, "Y X"]:
    """Counts that every pixel would have without a specimen, zero where too few are expected."""
    counts, expected = (np.asarray(a, float) for a in (state.counts, state.expected))
    covered = expected > MIN_COVERAGE * expected.max()
    if not covered.any():
        raise ValueError("no count was deposited; check the positions, the grid and the defocus")
    return np.where(covered, expected * counts[covered].sum() / expected[covered].sum(), 0.0)


def relative_contrast(state: Montage) -> Float[np.ndarray, "Y X"]:
    """Counts relative to those without a specimen, minus one; zero where too few are expected."""
    scale = intensity_scale(state)
    covered = scale > 0
    return np.where(covered, np.asarray(state.counts) / np.where(covered, scale, 1) - 1, 0)


def spread_and_noise(
    state: Montage, grid: ScanGrid
) -> tuple[Float[np.ndarray, "Y half"], Float[np.ndarray, "Y half"]]:
    """Transfer sinc² of the shares at the frequencies of `grid`, and the power of Poisson noise."""
    cycles = grid.frequencies() @ grid.steps.T
    spread = np.prod(np.sinc(cycles) ** 2, axis=-1)
    scale = intensity_scale(state)
    return spread, spread**2 * float(np.sum(1 / scale[scale > 0]))


def montage_grid(positions: Float[np.ndarray, "shot 2"], optics: Optics, pixel: float) -> ScanGrid:
    """Square grid of `pixel` [Å] that holds the deposits of the bright field at all positions."""
    rim = np.linspace(0, 2 * np.pi, 60)
    k = float(optics.radius) * np.stack([np.sin(rim), np.cos(rim)], -1)
    reach = float(np.abs(np.asarray(displacement(optics, jnp.asarray(k)))).max()) + pixel
    low, high = positions.min(0) - reach, positions.max(0) + reach
    ny, nx = (int(n) + 1 for n in np.ceil((high - low) / pixel))
    return ScanGrid(low, pixel * np.eye(2), (ny, nx))
