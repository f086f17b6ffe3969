"""What the figures show, as arrays in physical units."""

from typing import NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Bool, Complex, Float
from scipy.spatial import ConvexHull, Delaunay

from ..analysis.gauge import without_ramp
from ..inverse.fields import stack
from ..inverse.penalties import in_radians
from ..model import Model
from ..parts.indexed import PerShot, PerView, select

ROBUST = (0.5, 99.5)  # percentiles between which grey values are spread


class Picture(NamedTuple):
    """Slices of a specimen on the scanned area, NaN in its corners where no probe's centre was."""

    phase: Float[np.ndarray, "z Y X"]  # rad, ramp of the sum removed
    amplitude: Float[np.ndarray, "Y X"] | None  # of the whole specimen, None where nothing absorbs
    pixel: tuple[float, float]  # Å


def flat_phases(model: Model) -> Float[np.ndarray, "z Y X"]:
    """Phase of every slice [rad], on the whole object, the ramp of their sum on the scanned area removed."""
    phases = np.asarray(in_radians(model, "phase"), float)
    whole = phases.sum(0)
    return phases - (whole - without_ramp(whole, seen(model, whole.shape))) / len(phases)


def picture(model: Model, band_pass=None) -> Picture:
    """The specimen where the probe's centre was, or all of a periodic one.

    `band_pass` keeps periods between two lengths [Å].
    """
    area = (slice(None), *scanned(model))
    phases = flat_phases(model)[area]
    try:
        amplitude = np.exp(-np.asarray(in_radians(model, "absorption"), float)[area].sum(0))
    except ValueError:  # a specimen that does not absorb
        amplitude = None
    if band_pass is not None:
        phases = np.stack([filtered(phase, model.grid.pixel, band_pass) for phase in phases])
    shown = seen(model, stack(model.specimen).shape[-2:])[area[1:]]
    amplitude = None if amplitude is None else np.where(shown, amplitude, np.nan)
    return Picture(np.where(shown, phases, np.nan), amplitude, model.grid.pixel)


def positions(model: Model, view: int = 0) -> Float[np.ndarray, "shot 2"]:
    """Where the probe's centre stood (y, x) [Å]."""
    scan = select(model.scan, PerView, view)
    nodes = jax.tree.leaves(scan, is_leaf=lambda node: isinstance(node, PerShot))
    shots = max((len(jax.tree.leaves(node)[0]) for node in nodes if isinstance(node, PerShot)), default=1)
    of_shots = eqx.filter_jit(jax.vmap(lambda shot: select(scan, PerShot, shot).position()))
    return np.asarray(of_shots(np.arange(shots)), float)


def origin(model: Model) -> Float[np.ndarray, "2"]:
    """Where the specimen's pixel [0, 0] lies (y, x) [Å]."""
    return np.asarray(select(select(model.specimen, PerView, 0), PerShot, 0).origin, float)


def scanned(model: Model) -> tuple[slice, slice]:
    """Rows and columns of the specimen between the outermost positions."""
    shape = stack(model.specimen).shape[-2:]
    if getattr(model.specimen, "periodic", False):
        return slice(0, shape[0]), slice(0, shape[1])
    index = (positions(model) - origin(model)) / model.grid.pixel
    low, high = np.floor(index.min(0)).astype(int), np.ceil(index.max(0)).astype(int) + 1
    return tuple(slice(max(0, a), min(n, b)) for a, b, n in zip(low, high, shape, strict=True))  # type: ignore


def outline(model: Model) -> Delaunay:
    """The convex hull of the scan, which tells inside from outside."""
    places = positions(model)
    jitter = 1e-6 * np.random.default_rng(0).normal(size=places.shape) * model.grid.pixel  # a line has no hull
    return Delaunay((places + jitter)[ConvexHull(places + jitter).vertices])


def seen(model: Model, shape: tuple[int, ...]) -> Bool[np.ndarray, "Y X"]:
    """Where the specimen lies inside the scan's outline; everywhere if it is periodic or the scan is small."""
    places = np.moveaxis(np.indices(shape), 0, -1) * model.grid.pixel + origin(model)
    if getattr(model.specimen, "periodic", False) or len(positions(model)) < 4:
        return np.ones(shape, bool)
    return outline(model).find_simplex(places) >= 0


def filtered(image: Float[np.ndarray, "Y X"], pixel, band: tuple[float, float]) -> Float[np.ndarray, "Y X"]:
    """The image with the periods between the two lengths of `band` [Å], mirrored at its edges."""
    short, long = sorted(band)
    mirrored = np.pad(image, [(0, n) for n in image.shape], mode="symmetric")
    ky, kx = (np.fft.fftfreq(n, p) for n, p in zip(mirrored.shape, pixel, strict=True))
    k4 = (ky[:, None] ** 2 + kx[None, :] ** 2) ** 2
    kept = np.exp(-k4 * short**4) - np.exp(-k4 * long**4)
    return np.fft.ifft2(np.fft.fft2(mirrored) * kept).real[: image.shape[0], : image.shape[1]]


class Modes(NamedTuple):
    """Orthogonal probe modes, the strongest first."""

    waves: Complex[np.ndarray, "m y x"]  # centre in the middle
    spectra: Complex[np.ndarray, "m y x"]  # zero frequency in the middle
    powers: Float[np.ndarray, "m"]  # fractions of the whole


def probe_modes(model: Model) -> Modes:
    """The modes of the first shot's probe, made orthogonal (which changes no pattern)."""
    probe = select(select(model.probe, PerView, 0), PerShot, 0)
    spectra = np.asarray(probe.spectrum(model.grid))
    flat = spectra.reshape(len(spectra), -1)
    _, sizes, rows = np.linalg.svd(flat, full_matrices=False)
    spectra = (sizes[:, None] * rows).reshape(spectra.shape)
    waves, spectra = (np.fft.fftshift(a, axes=(-2, -1)) for a in (np.fft.ifft2(spectra, norm="ortho"), spectra))
    return Modes(waves, spectra, sizes**2 / np.sum(sizes**2))


def limits(image) -> tuple[float, float]:
    """Grey values that a few outliers do not decide."""
    low, high = np.nanpercentile(image, ROBUST)
    return (float(low), float(high)) if high > low else (float(low) - 1e-6, float(low) + 1e-6)
