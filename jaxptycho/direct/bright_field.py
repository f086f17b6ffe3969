"""Bright-field pixels of every pattern, kept as counts, and their transform over the scan."""

import math
from collections.abc import Iterator
from functools import cached_property

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Complex, Float, Int, Num

from ..data import Dataset
from ..physics.grids import Grid
from ..physics.types import Pair
from .placement import AbstractPlacement
from .processor import AbstractProcessor, Block

CHUNK_BYTES = 2**28  # of transforms that are in memory at once
BRIGHT = 0.9  # quantile of the mean counts that is inside the disc
STRONG_MODULATION = 0.5  # relative rms of bright-field images, of a phase of about 1 rad rms


class BrightFieldStack(eqx.Module):
    """Counts of the bright-field pixels: one virtual image for each pixel k of the detector."""

    counts: Num[Array, "shot k"]
    positions: Float[np.ndarray, "shot 2"]  # Å (y, x)
    k: Float[np.ndarray, "k 2"]  # 1/Å (y, x) from the centre of the disc
    seen: Bool[np.ndarray, " shot"]  # shots that had a pattern
    grid: Grid = eqx.field(static=True)  # of the patterns

    @cached_property
    def mean(self) -> Float[np.ndarray, " k"]:
        """Mean counts ⟨I(k)⟩ of every pixel over the shots that were seen."""
        total = jnp.sum(self.counts, 0, dtype=jnp.float32, where=jnp.asarray(self.seen)[:, None])
        return np.asarray(total, float) / max(1, self.seen.sum())

    @cached_property
    def intensity(self) -> float:
        """|P|² inside the disc [counts per pixel]: median of the brighter half of the range."""
        mean = self.mean
        return float(np.median(mean[mean >= np.quantile(mean, BRIGHT) / 2]))


class KeptState(eqx.Module):
    """Counts of the shots seen so far, zero elsewhere."""

    counts: Num[Array, "shot k"]
    positions: Float[Array, "shot 2"]
    seen: Bool[Array, " shot"]


class BrightField(AbstractProcessor):
    """Processor that keeps the bright-field pixels of `n_shots` patterns, in their data type.

    `pixels` are flat indices into a pattern [y, x] with the zero frequency in the corner, or for
    sums of several pixels those of each; `k` are their mean frequencies from the centre of the disc
    [1/Å]. Made by `bright_field_of` and `in_squares`.
    """

    pixels: Int[np.ndarray, " k *member"]
    k: Float[np.ndarray, "k 2"]
    grid: Grid = eqx.field(static=True)
    n_shots: int = eqx.field(static=True)
    dtype: np.dtype = eqx.field(static=True)

    def init(self) -> KeptState:
        """State without any pattern."""
        counts = jnp.zeros((self.n_shots, len(self.pixels)), self.dtype)
        positions = jnp.zeros((self.n_shots, 2))
        return KeptState(counts, positions, jnp.zeros(self.n_shots, bool))

    def update(self, state: KeptState, block: Block) -> KeptState:
        """State with the bright field of a block, gathered before any conversion."""
        b = len(block.shots)
        values = jnp.reshape(block.patterns, (b, -1))[:, self.pixels]
        members = tuple(range(2, values.ndim))
        values = jnp.sum(values, members, dtype=self.dtype)
        rows = jnp.where(block.weight > 0, block.shots, self.n_shots)
        return KeptState(
            state.counts.at[rows].set(values, mode="drop"),
            state.positions.at[rows].set(block.positions, mode="drop"),
            state.seen.at[rows].set(True, mode="drop"),
        )

    def merge(self, first: KeptState, second: KeptState) -> KeptState:
        """State of the shots of both: a shot is zero in one of them."""
        return KeptState(
            first.counts + second.counts,
            first.positions + second.positions,
            first.seen | second.seen,
        )

    def result(self, state: KeptState) -> BrightFieldStack:
        """The kept stack."""
        host = np.asarray(state.positions, float), np.asarray(state.seen)
        return BrightFieldStack(state.counts, host[0], self.k, host[1], self.grid)


def bright_field_of(
    data: Dataset,
    semiangle: float,
    centre: Pair = (0.0, 0.0),
    view: int = 0,
    reach: float = 1.0,
) -> BrightField:
    """Processor for the pixels of `data` that see the disc of `semiangle` [rad] and count.

    `centre` (y, x) [rad] is that of the disc, from the pattern's zero frequency; `reach` widens the
    area, as Wigner deconvolution can use. Raises ValueError for a disc without pixels or beyond the
    detector.
    """
    mask = None if data.mask is None else np.asarray(data.mask)
    disc = semiangle, centre, mask, reach
    return bright_field_in(data.grid, data.n_shots[view], data.kinds[view], *disc)


def bright_field_in(
    grid: Grid,
    n_shots: int,
    dtype: np.dtype,
    semiangle: float,
    centre: Pair = (0.0, 0.0),
    mask: Bool[np.ndarray, "y x"] | None = None,
    reach: float = 1.0,
) -> BrightField:
    """As `bright_field_of`, for patterns that are still to come; `mask` has its zero in the middle.

    Raises ValueError for a disc without pixels or beyond the detector.
    """
    shifted = frequencies_from(grid, centre)
    radius = semiangle / grid.wavelength
    inside = np.hypot(shifted[..., 0], shifted[..., 1]) < reach * radius + 0.5 * max(grid.dk)
    counted = inside if mask is None else inside & np.fft.ifftshift(mask)
    widest = min(n * dk / 2 for n, dk in zip(grid.shape, grid.dk, strict=True))
    if not counted.any() or radius > widest:
        raise ValueError(
            f"the disc of {1e3 * semiangle:.4g} mrad covers {counted.sum()} valid pixels of a "
            f"detector that reaches {1e3 * widest * grid.wavelength:.4g} mrad; check semiangle_mrad"
        )
    pixels = np.flatnonzero(counted).astype(np.int32)
    k = shifted.reshape(-1, 2)[pixels]
    return BrightField(pixels, k, grid, n_shots, dtype)


def in_squares(bright: BrightField, side: int) -> BrightField:
    """The same disc in sums over squares of `side` × `side` pixels, those that are complete."""
    squares = np.floor(bright.k / (side * np.array(bright.grid.dk)) + 0.5).astype(int)
    square, size = np.unique(squares, axis=0, return_inverse=True, return_counts=True)[1:]
    square = square.ravel()
    in_order = np.argsort(square, kind="stable")
    members = in_order[(size == side**2)[square[in_order]]].reshape(-1, side**2)
    k = bright.k[members].mean(1)
    kind = np.dtype(np.float32)
    return BrightField(bright.pixels[members], k, bright.grid, bright.n_shots, kind)


def frequencies_from(grid: Grid, centre: Pair = (0.0, 0.0)) -> Float[np.ndarray, "y x 2"]:
    """Frequencies (y, x) [1/Å] of a pattern from the `centre` (y, x) [rad] of its disc."""
    axes = (np.fft.fftfreq(n, p) for n, p in zip(grid.shape, grid.pixel, strict=True))
    k = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    return k - np.asarray(centre, float) / grid.wavelength


def scan_transform(
    stack: BrightFieldStack, placement: AbstractPlacement, pixels: slice | Int[np.ndarray, " some"]
) -> Complex[Array, "k Y half"]:
    """G(k, Q) = Σ_p (I_p(k) − ⟨I(k)⟩) e^{−2πiQ·(r_p − origin)} / |P|² of some `pixels` k.

    At the frequencies `placement.grid.frequencies()`. G = iΦ(Q)Γ(k, Q) for a weak phase φ, with Φ
    the sum of φ e^{−2πiQ·(r − origin)} over the entries of the grid.
    """
    mean = jnp.asarray(stack.mean[pixels], jnp.float32)
    return _transform(stack.counts[:, pixels], mean, stack.intensity, placement)


@eqx.filter_jit
def _transform(counts, mean, intensity, placement):
    return placement.transform((counts - mean) / intensity)


def transform_chunks(
    stack: BrightFieldStack, placement: AbstractPlacement, budget: int = CHUNK_BYTES
) -> Iterator[tuple[slice, Complex[Array, "k Y half"]]]:
    """`scan_transform` of consecutive pixels, as many at once as fit into `budget` bytes."""
    plane = 16 * math.prod(placement.grid.shape)
    n = len(stack.k)
    size = max(1, min(n, budget // plane))
    size = math.ceil(n / math.ceil(n / size))
    for start in range(0, n, size):
        pixels = slice(start, min(start + size, n))
        yield pixels, scan_transform(stack, placement, pixels)


def modulation(stack: BrightFieldStack) -> float:
    """Relative rms of the bright-field images, from the covariance of consecutive shots.

    Noise is independent from shot to shot, so that this is a lower bound without its share.
    """
    return float(_modulation(stack.counts, jnp.asarray(stack.mean, jnp.float32)))


@eqx.filter_jit
def _modulation(counts, mean):
    def _add(i, total):
        here, after = (counts[j].astype(jnp.float32) - mean for j in (i, i + 1))
        return total + jnp.dot(here, after)

    n = len(counts) - 1
    covariance = lax.fori_loop(0, n, _add, jnp.float32(0)) / n
    return jnp.sqrt(jnp.maximum(covariance, 0) / jnp.maximum(jnp.dot(mean, mean), 1e-30))


def strong_modulation(stack: BrightFieldStack) -> str | None:
    """Caution for a stack whose images vary more than a weak phase lets them, otherwise None."""
    found = modulation(stack)
    if found <= STRONG_MODULATION:
        return None
    return (
        f"the bright-field images vary by {found:.2f} of their mean, where a weak phase changes "
        f"them by less than {STRONG_MODULATION:g}: the picture is qualitative"
    )
