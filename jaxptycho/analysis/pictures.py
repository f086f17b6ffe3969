"""Pictures of a model as arrays in physical units: the specimen where scanned, probe modes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Complex, Float

from ..model import Model
from ..parts.indexed import first_shot
from ..physics.types import Numbers
from .gauge import without_ramp
from .scanned import scanned, seen

PixelPair = Sequence[float] | np.ndarray  # Å (y, x)
ROBUST = (0.5, 99.5)  # percentiles at the ends of the grey scale


class Picture(NamedTuple):
    """Slices of a specimen on the scanned area, NaN where no probe was centred."""

    phase: Float[np.ndarray, "z Y X"]  # rad, ramp of the sum removed
    amplitude: Float[np.ndarray, "Y X"] | None  # of the full specimen, None without absorption
    pixel: tuple[float, float]  # Å
    faces: Float[np.ndarray, " z+1"]  # depths of the slices' ends [Å], the entrance at 0


def flat_phases(model: Model) -> Float[np.ndarray, "z Y X"]:
    """Phase of every slice [rad] on the full object, without the ramp of their sum.

    The ramp is that on the scanned area.
    """
    phases = np.asarray(model.specimen.phase_per_slice(model.grid), float)
    whole = phases.sum(0)
    return phases - (whole - without_ramp(whole, seen(model, whole.shape))) / len(phases)


def picture(model: Model, band_pass: Sequence[float] | None = None) -> Picture:
    """Specimen at the centres of the probe, or all of a periodic one.

    `band_pass` keeps periods between two lengths [Å].
    """
    area = (slice(None), *scanned(model))
    phases = flat_phases(model)[area]
    try:
        absorption = model.specimen.phase_per_slice(model.grid, "absorption")
        amplitude = np.exp(-np.asarray(absorption, float)[area].sum(0))
    except ValueError:  # a specimen that does not absorb
        amplitude = None
    if band_pass is not None:
        phases = np.stack([band_filtered(phase, model.grid.pixel, band_pass) for phase in phases])
    shown = seen(model, model.specimen.shapes(model.grid).plane)[area[1:]]
    phases = np.where(shown, phases, np.nan)
    amplitude = None if amplitude is None else np.where(shown, amplitude, np.nan)
    frame = np.ix_(shown.any(1), shown.any(0))  # outermost pixels may lie outside of the outline
    faces = np.append(0.0, np.cumsum(np.asarray(model.specimen.thicknesses(model.grid), float)))
    return Picture(
        phases[:, *frame],
        None if amplitude is None else amplitude[frame],
        model.grid.pixel,
        faces,
    )


def band_filtered(
    image: Float[np.ndarray, "Y X"], pixel: PixelPair, band: Sequence[float]
) -> Float[np.ndarray, "Y X"]:
    """Image with the periods between the two lengths of `band` [Å], mirrored at its edges."""
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
    powers: Float[np.ndarray, " m"]  # fractions of the sum


def probe_modes(model: Model) -> Modes:
    """Modes of the first shot's probe, orthogonalised (which changes no pattern)."""
    probe = first_shot(model.probe)
    spectra = np.asarray(probe.spectrum(model.grid))
    flat = spectra.reshape(len(spectra), -1)
    _, sizes, rows = np.linalg.svd(flat, full_matrices=False)
    spectra = (sizes[:, None] * rows).reshape(spectra.shape)
    waves, spectra = (
        np.fft.fftshift(a, axes=(-2, -1)) for a in (np.fft.ifft2(spectra, norm="ortho"), spectra)
    )
    return Modes(waves, spectra, sizes**2 / np.sum(sizes**2))


def limits(image: Numbers) -> tuple[float, float]:
    """Grey values at the ends of the scale, robust against outliers."""
    low, high = np.nanpercentile(image, ROBUST)
    return (float(low), float(high)) if high > low else (float(low) - 1e-6, float(low) + 1e-6)
