"""Placement of shots on the grid of an image, and the Fourier transform over the scan.

Shots of a raster are entries of its own grid (`OnGrid`), any others are spread on a finer one by a
compact kernel whose transform is divided out afterwards (`OffGrid`; Dutt & Rokhlin, SIAM J. Sci.
Comput. 14, 1368 (1993); kernel of Barnett, Magland & af Klinteberg, SIAM J. Sci. Comput. 41, C479
(2019)).
"""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Int

from .scan_grid import ScanGrid, fit_grid, square_grid

TAPS = 7  # entries of the fine grid along each axis that one shot is spread to
FINER = 2  # entries of the fine grid per entry of the image, along each axis
BETA = 2.30 * TAPS  # exponent of the spreading kernel


class AbstractPlacement(eqx.Module):
    """Linear map from values of the shots to the Fourier transform of an image."""

    grid: eqx.AbstractVar[ScanGrid]
    weight: eqx.AbstractVar[Float[np.ndarray, " shot"]]

    @abstractmethod
    def transform(self, values: Float[Array, "shot k"]) -> Complex[Array, "k Y half"]:
        """Σ_p weight_p · value_p e^{−2πiQ·(r_p − origin)} at `grid.frequencies()`."""

    @property
    def power(self) -> float:
        """Σ_p weight_p²: noise power of the transform of values of variance 1."""
        return float(np.sum(self.weight**2))


class OnGrid(AbstractPlacement):
    """Shots at entries of a grid; the transform is repeated `upsample` times along both axes."""

    grid: ScanGrid  # of the image, `upsample` times finer than the scan
    weight: Float[np.ndarray, " shot"]
    source: Int[np.ndarray, " entry"]  # shot at every entry of the scan's grid, or n_shots
    upsample: int = eqx.field(static=True)
    shape: tuple[int, int] = eqx.field(static=True)  # of the scan's grid

    @eqx.filter_jit
    def transform(self, values: Float[Array, "shot k"]) -> Complex[Array, "k Y half"]:
        """See `AbstractPlacement.transform`."""
        weighted = values * jnp.asarray(self.weight, values.dtype)[:, None]
        planes = weighted.at[self.source].get(mode="fill", fill_value=0).T
        coarse = jnp.fft.rfft2(jnp.reshape(planes, (-1, *self.shape)))
        return coarse if self.upsample == 1 else _repeated(coarse, self.shape, self.upsample)


class OffGrid(AbstractPlacement):
    """Shots anywhere, spread to several entries of a fine grid."""

    grid: ScanGrid
    weight: Float[np.ndarray, " shot"]
    entries: Int[np.ndarray, "shot tap"]  # of the fine grid
    spread: Float[np.ndarray, "shot tap"]
    sharpening: Float[np.ndarray, "Y half"]  # one over the transform of the kernel

    @eqx.filter_jit
    def transform(self, values: Float[Array, "shot k"]) -> Complex[Array, "k Y half"]:
        """See `AbstractPlacement.transform`."""
        ny, nx = self.grid.shape
        fine = FINER * ny, FINER * nx
        weighted = values * jnp.asarray(self.weight, values.dtype)[:, None]
        taps = jnp.asarray(self.entries.T), jnp.asarray(self.spread.T, values.dtype)
        empty = jnp.zeros((fine[0] * fine[1], values.shape[1]), values.dtype)

        def add(planes: Array, tap: tuple[Array, Array]) -> tuple[Array, None]:
            entries, share = tap
            return planes.at[entries].add(share[:, None] * weighted), None

        planes, _ = jax.lax.scan(add, empty, taps)  # unrolled it takes seconds to compile
        spectrum = jnp.fft.rfft2(jnp.reshape(planes.T, (-1, *fine)))
        rows = np.r_[0 : (ny + 1) // 2, fine[0] - ny // 2 : fine[0]]
        return spectrum[:, rows, : nx // 2 + 1] * jnp.asarray(self.sharpening, values.dtype)


def place(
    positions: Float[np.ndarray, "shot 2"],
    seen: Bool[np.ndarray, " shot"] | None = None,
    upsample: int = 1,
    taper: int = 0,
    pad: int = 0,
) -> AbstractPlacement:
    """Placement of the shots that were `seen` on their own grid, or on a square one otherwise.

    `upsample` makes the steps of the image finer than those of the scan; `taper` positions along
    every edge are weighted by sin², `pad` entries of the scan are added on all sides.
    """
    seen = np.ones(len(positions), bool) if seen is None else seen
    try:
        grid, entries = fit_grid(positions[seen])
    except ValueError:
        return off_grid(positions, seen, upsample, taper, pad)
    edges = [edge_weight(entries[:, axis], grid.shape[axis], taper) for axis in (0, 1)]
    weight = np.zeros(len(positions))
    weight[seen] = edges[0] * edges[1] * upsample**2
    grid = grid.padded(pad, pad)
    source = np.full(grid.shape, len(positions))
    source[tuple((entries + pad).T)] = np.flatnonzero(seen)
    return OnGrid(grid.upsampled(upsample), weight, source.ravel(), upsample, grid.shape)


def edge_weight(
    index: Float[np.ndarray, "*n"] | Int[np.ndarray, "*n"], size: float, taper: int
) -> Float[np.ndarray, "*n"]:
    """Weight sin² of the places `index` of an axis of `size` entries, 1 beyond `taper` entries."""
    inside = np.minimum(index, size - 1 - index) + 0.5
    return np.sin(np.pi / 2 * np.clip(inside / max(taper, 0.5), 0, 1)) ** 2


def off_grid(
    positions: Float[np.ndarray, "shot 2"],
    seen: Bool[np.ndarray, " shot"],
    upsample: int = 1,
    taper: int = 0,
    pad: int = 0,
) -> OffGrid:
    """Placement of any positions on a square grid of as many entries as shots; see `place`.

    A sum over shots of uneven density, which the picture shows as noise.
    """
    coarse = square_grid(positions[seen])
    index = (positions - coarse.origin) @ np.linalg.inv(coarse.steps)
    edges = [edge_weight(index[:, axis], coarse.shape[axis], taper) for axis in (0, 1)]
    weight = np.where(seen, edges[0] * edges[1] * upsample**2, 0.0)
    grid = coarse.padded(pad, pad).upsampled(upsample)
    shape = np.array(grid.shape) * FINER
    exact = (positions - grid.origin) @ np.linalg.inv(grid.steps) * FINER
    first = np.ceil(exact - TAPS / 2).astype(int)
    taps = first[:, None, :] + np.arange(TAPS)[:, None]
    share = _kernel((taps - exact[:, None, :]) * 2 / TAPS)
    entries = (taps[:, :, None, 0] % shape[0]) * shape[1] + taps[:, None, :, 1] % shape[1]
    spread = share[:, :, None, 0] * share[:, None, :, 1]
    n = len(positions)
    sharpening = np.outer(
        *(1 / _transform_of_kernel(f(m) / FINER) for f, m in zip(_RFFT, grid.shape, strict=True))
    )
    return OffGrid(grid, weight, entries.reshape(n, -1), spread.reshape(n, -1), sharpening)


_RFFT = np.fft.fftfreq, np.fft.rfftfreq


def _kernel(x):
    """Exponential of a semicircle on −1 < x < 1."""
    return np.where(np.abs(x) < 1, np.exp(BETA * (np.sqrt(np.maximum(1 - x**2, 0)) - 1)), 0.0)


def _transform_of_kernel(cycles):
    """∫ kernel(2n/TAPS) e^{−2πi·cycles·n} dn over entries n of the fine grid."""
    nodes, weights = np.polynomial.legendre.leggauss(64)
    waves = np.cos(np.pi * TAPS * np.outer(cycles, nodes))
    return TAPS / 2 * waves @ (weights * _kernel(nodes))


def _repeated(coarse, shape, factor):
    """Half plane of a spectrum of `shape` that is repeated `factor` times along both axes."""
    nx = shape[1]
    mirrored = jnp.conj(jnp.roll(coarse[:, ::-1], 1, axis=1)[:, :, 1 : (nx + 1) // 2][:, :, ::-1])
    full = jnp.concatenate([coarse, mirrored], axis=2)
    return jnp.tile(full, (1, factor, factor))[:, :, : factor * nx // 2 + 1]
