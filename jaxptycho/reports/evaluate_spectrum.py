"""Measures of images without a reference: information limit, Bragg peaks, and a control."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..analysis.resolution import Control, FourierCorrelation, fixed, phase_randomised_control
from ..analysis.spectrum import (
    RING,
    bragg_peaks,
    bragg_visibility,
    information_limit,
    radial_spectrum,
)
from ..figures.plots import save
from ..figures.resolution import draw_control, draw_spectrum

MIN_CORRELATION = 0.8  # beyond which the control randomises phases (Chen et al. 2013)


class Compared(NamedTuple):
    """Two registered images or volumes, as correlated."""

    first: np.ndarray
    second: np.ndarray
    pixel: tuple[float, ...]  # Å
    window: np.ndarray


def spectrum_rows(
    image: np.ndarray, pixel: float | Sequence[float] | np.ndarray, window: np.ndarray | None
) -> dict[str, str]:
    """Information limit of an image or a volume, and visibility of its strongest Bragg peak."""
    limit = information_limit(radial_spectrum(image, pixel, window)).resolution
    rows = {
        "information limit": f"{limit:.4g} Å (power above the floor)"
        if np.isfinite(limit)
        else "none"
    }
    vectors = _peaks(image, pixel)
    if len(vectors):
        seen = bragg_visibility(image, pixel, vectors[:1])[0]
        rows["strongest Bragg peak"] = (
            f"{1 / np.linalg.norm(vectors[0]):.4g} Å, {seen:.3g} × the power around it"
        )
    return rows


def _peaks(image, pixel) -> np.ndarray:
    """Reciprocal vectors of the strongest peaks with sufficient distance for a background."""
    steps = 1 / (np.array(image.shape) * np.broadcast_to(pixel, image.ndim))
    if min(image.shape) < 4 * RING:
        return np.zeros((0, image.ndim))
    found = bragg_peaks(image, pixel, beyond=float((RING + 1) * steps.max()))
    room = np.array(image.shape) // 2 - RING - 1
    return found[(np.abs(found) / steps < room).all(1)]


def draw_spectra(
    images: dict[str, np.ndarray],
    pixel: float | Sequence[float] | np.ndarray,
    window: np.ndarray | None,
    folder: Path,
) -> None:
    """Write the power of every image as `spectrum_NAME.png` in the folder."""
    for name, image in images.items():
        spectrum = radial_spectrum(image, pixel, window)
        save(draw_spectrum(spectrum, information_limit(spectrum)), folder / f"spectrum_{name}.png")


def control_of(pair: Compared, curve: FourierCorrelation) -> Control | None:
    """Phase-randomised control of a correlation; None if it never exceeds MIN_CORRELATION."""
    reached = curve.resolution(fixed(MIN_CORRELATION))
    if not np.isfinite(reached):
        return None
    return phase_randomised_control(pair.first, pair.second, pair.pixel, pair.window, 1 / reached)


def control_rows(control: Control | None, folder: Path | None, name: str) -> dict[str, str]:
    """Resolution without the contribution of the window; `NAME_control.png` in the folder."""
    if control is None:
        return {}
    if folder is not None:
        save(draw_control(control), folder / f"{name}_control.png")
    limit = control.corrected.resolution(fixed(0.143))
    return {"0.143 resolution, less the window's part": f"{limit:.4g} Å"}
