"""Depth resolution: theoretical limit, measured profiles, and correlation with a ground truth."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import least_squares
from scipy.special import erf

from ..inverse.constraints.filters import measured_part
from ..physics.types import Numbers

FWHM = 2 * np.sqrt(2 * np.log(2))  # of a Gaussian, in σ
RISE = 2.5631  # of an error function from 10 to 90 %, in σ


def highest_depth_frequency(kr: Any, semiangle: float, wavelength: float) -> Any:
    """Highest |k_z| = α k_r + λk_r²/2 [1/Å] that a view of semiangle α [rad] measures at `kr`.

    First Born approximation: the beams of the aperture cover the Ewald spheres between the two
    tangents.
    """
    return semiangle * kr + wavelength * kr**2 / 2


def depth_resolution(kr: Numbers, semiangle: float, wavelength: float) -> Float[np.ndarray, "..."]:
    """Shortest period along z [Å] at the lateral frequency `kr` [1/Å]; infinite at 0."""
    highest = np.asarray(highest_depth_frequency(np.asarray(kr, float), semiangle, wavelength))
    return np.divide(1, highest, out=np.full(highest.shape, np.inf), where=highest > 0)


def measurable_volume(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], semiangle: float
) -> Float[Array, "z y x"]:
    """Transfer function W(k) of `measured_part` with β = 1/α on the frequencies of `fftn`, zero in
    the corner.

    `shape` and `spacing` [Å] are those of a volume (z, y, x). Pad the volume in z before
    multiplying its transform, otherwise its faces mix; `inverse.constraints.filters.measurable`
    mirrors it instead.
    """
    kz, ky, kx = (jnp.fft.fftfreq(n, d) for n, d in zip(shape, spacing, strict=True))
    kr = jnp.hypot(ky[:, None], kx)
    guard = 0.5 / max(n * d for n, d in zip(shape[1:], spacing[1:], strict=True))
    return measured_part(kz[:, None, None], kr, 1 / semiangle, guard)


def depth_profiles(
    stack: Float[np.ndarray, "z Y X"],
    columns: Float[np.ndarray, "n 2"],
    pixel: Numbers,
    radius: float,
    origin: Numbers = (0.0, 0.0),
) -> Float[np.ndarray, "n z"]:
    """Profiles along z at `columns` (y, x) [Å].

    Means weighted by (1 − u²)² with u = distance/`radius` [Å]. `origin` [Å] is the position of
    pixel [0, 0].
    """
    pixel = np.broadcast_to(np.asarray(pixel, float), 2)
    columns = np.asarray(columns, float) - origin
    size = np.array(stack.shape[1:])
    outside = np.flatnonzero(((columns < -0.5 * pixel) | (columns > (size - 0.5) * pixel)).any(1))
    if len(outside):
        raise ValueError(
            f"{len(outside)} columns are outside the stack (first: column {outside[0]} at "
            f"{columns[outside[0]]} Å from pixel [0, 0], the stack measures {size * pixel} Å); "
            "leave them out, or give the origin"
        )
    offsets = np.moveaxis(
        np.indices([2 * int(np.ceil(radius / p)) + 1 for p in pixel]), 0, -1
    ).reshape(-1, 2)
    offsets = offsets - offsets[-1] // 2
    index = np.rint(columns / pixel).astype(int)[:, None] + offsets
    distance = np.linalg.norm(index * pixel - columns[:, None], axis=-1) / radius
    inside = ((index >= 0) & (index < size)).all(-1)
    weight = np.where(inside, np.maximum(1 - distance**2, 0) ** 2, 0)
    if not weight.any(1).all():
        raise ValueError(
            f"a radius of {radius} Å holds no pixel of {pixel} Å; give at least one pixel"
        )
    y, x = np.moveaxis(np.where(inside[..., None], index, 0), -1, 0)
    return np.einsum("znk,nk->nz", stack[:, y, x], weight / weight.sum(1, keepdims=True))


class DepthPeaks(NamedTuple):
    """Gaussians along z, one for each profile."""

    position: Float[np.ndarray, " n"]  # Å below the middle of the first slice
    fwhm: Float[np.ndarray, " n"]  # Å
    amplitude: Float[np.ndarray, " n"]  # of the profiles' unit
    background: Float[np.ndarray, " n"]
    residual: Float[np.ndarray, " n"]  # root mean square, relative to the amplitude


class DepthEdges(NamedTuple):
    """Error functions along z, one for each profile."""

    position: Float[np.ndarray, " n"]  # Å below the middle of the first slice
    width: Float[np.ndarray, " n"]  # Å, from 10 to 90 % of the step
    step: Float[np.ndarray, " n"]  # of the profiles' unit, > 0 where the profile rises with depth
    background: Float[np.ndarray, " n"]
    residual: Float[np.ndarray, " n"]  # root mean square, relative to the step


def fit_depth_peaks(profiles: Float[np.ndarray, "n z"], spacing: float) -> DepthPeaks:
    """Position and width of the peak of each profile, by a Gaussian fit; slices `spacing` [Å]
    apart.
    """
    centre, sigma, height, floor, residual = _fit(_gaussian, profiles, spacing)
    return DepthPeaks(centre, FWHM * sigma, height, floor, residual)


def fit_depth_edges(profiles: Float[np.ndarray, "n z"], spacing: float) -> DepthEdges:
    """Position and width of the step of each profile, by an error function; `spacing` in Å."""
    centre, sigma, height, floor, residual = _fit(_edge, profiles, spacing)
    return DepthEdges(centre, RISE * sigma, height, floor, residual)


def slice_correlation(
    result: Numbers, truth: Numbers, where: np.ndarray | None = None
) -> Float[np.ndarray, "z Z"]:
    """Pearson's correlation of every slice of `result` with every slice of `truth`, inside `where`.

    `result` is [z, Y, X], `truth` [Z, Y, X]. A result that resolves depth has a ridge on the
    diagonal, as narrow as its depth resolution.
    """
    if np.shape(result)[1:] != np.shape(truth)[1:]:
        raise ValueError(
            f"slices of {np.shape(result)[1:]} pixels cannot be compared with ones of "
            f"{np.shape(truth)[1:]}; resample the truth onto the result's pixels"
        )
    where = np.ones(np.shape(truth)[1:], bool) if where is None else where
    first, second = (np.asarray(stack, float)[:, where] for stack in (result, truth))
    first, second = (stack - stack.mean(1, keepdims=True) for stack in (first, second))
    norm = np.outer(np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1))
    # an empty slice correlates with none
    return np.divide(first @ second.T, norm, out=np.zeros(norm.shape), where=norm > 0)


def _gaussian(z, centre, sigma):
    return np.exp(-(((z - centre) / sigma) ** 2) / 2)


def _edge(z, centre, sigma):
    return (1 + erf((z - centre) / (np.sqrt(2) * sigma))) / 2


def _fit(shape: Callable, profiles, spacing: float):
    """Centre, σ, height, background and relative misfit of `shape` in every profile."""
    profiles = np.asarray(profiles, float)
    if profiles.ndim != 2 or profiles.shape[1] < 5 or not np.isfinite(profiles).all():
        raise ValueError(
            f"profiles came as an array of shape {profiles.shape}; finite ones [profile, slice] "
            "of 5 slices or more are required"
        )
    z = spacing * np.arange(profiles.shape[1])
    fitted = [_fit_one(shape, z, profile) for profile in profiles]
    return (
        tuple(np.array(values) for values in zip(*fitted, strict=True))
        if fitted
        else (np.zeros(0),) * 5
    )


def _fit_one(shape, z, profile):
    """Least squares in centre and log σ; height and floor are linear (Golub & Pereyra 1973)."""

    def linear(p: Any) -> Any:
        columns = np.stack([shape(z, p[0], np.exp(p[1])), np.ones_like(z)], 1)
        solved = np.linalg.lstsq(columns, profile, rcond=None)[0]
        return solved, columns @ solved - profile

    step = z[1]
    length = z[-1]
    bounds = [(-step, np.log(0.05 * step)), (length + step, np.log(2 * length))]
    starts = [(c, np.log(s)) for c in z for s in (step, 3 * step, length / 4)]
    start = min(starts, key=lambda p: np.sum(linear(p)[1] ** 2))
    best = least_squares(lambda p: linear(p)[1], start, bounds=bounds, x_scale=(step, 1.0)).x
    (height, floor), rest = linear(best)
    return (
        best[0],
        np.exp(best[1]),
        height,
        floor,
        np.sqrt(np.mean(rest**2)) / max(abs(height), 1e-300),
    )
