"""Agreement of two results: registered phases, Fourier ring correlation, resolution."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.ndimage import fourier_shift

from ..analysis.errors import probe_fidelity
from ..analysis.gauge import correlation, register, slope, without_ramp
from ..analysis.images import nrmse
from ..analysis.pictures import flat_phases, probe_modes
from ..analysis.resolution import THRESHOLDS, FourierCorrelation, fixed, fourier_correlation
from ..analysis.scanned import origin, outline
from ..analysis.shells import taper, tapered
from ..figures.plots import save
from ..figures.resolution import draw_correlation
from ..io.atomic_write import write_table
from ..model import Model, probe_positions
from ..runs.folder import load_result, refuse_existing
from .compare_volumes import compare_volumes
from .evaluate_spectrum import Compared, control_of, control_rows, draw_spectra, spectrum_rows

MIN_SIDE = 8  # pixels, smallest side of a common area


def compare_results(first: Path, second: Path, out: Path | None = None) -> dict[str, str]:
    """Agreement of two results as rows; the ring correlation as figure and table in `out`."""
    one, other = (load_result(path) for path in (first, second))
    if not np.allclose(one.grid.pixel, other.grid.pixel, rtol=1e-4):
        raise ValueError(
            f"{first} has pixels of {one.grid.pixel[0]:g} Å and {second} of "
            f"{other.grid.pixel[0]:g} Å; only results on the same grid are compared"
        )
    if out is not None:
        refuse_existing(out)
        out.mkdir(parents=True)
    return compare_models(one, other, out)


def compare_models(first: Model, second: Model, folder: Path | None) -> dict[str, str]:
    """Agreement of two models as rows; `frc.png`, `frc.csv` (of volumes `fsc.png` …) in `folder`.

    Nothing is written without a folder.
    """
    if first.specimen.rotates or second.specimen.rotates:
        rows, pair = compare_volumes(first, second, folder)
        kind = "fsc"
    else:
        shown = (replace(m, specimen=m.specimen.in_slices(m.grid)) for m in (first, second))
        rows, pair = compare_phases(*shown)
        kind = "frc"
    curve = fourier_correlation(*pair)
    if folder is not None:
        save(draw_correlation(curve), folder / f"{kind}.png")
        write_curve(folder / f"{kind}.csv", curve)
        draw_spectra({"a": pair.first, "b": pair.second}, pair.pixel, pair.window, folder)
    levels = THRESHOLDS | {"0.5": fixed(0.5)}
    rows |= {
        f"{name} resolution": f"{curve.resolution(level):.4g} Å" for name, level in levels.items()
    }
    rows |= control_rows(control_of(pair, curve), folder, kind)
    for name, image in (("A", pair.first), ("B", pair.second)):
        rows |= {
            f"{what} of {name}": words
            for what, words in spectrum_rows(image, pair.pixel, pair.window).items()
        }
    return rows


def compare_phases(first: Model, second: Model) -> tuple[dict[str, str], Compared]:
    """Agreement of the summed phases of two models as rows, and both as correlated."""
    a, b, shift = common_phases(first, second)
    pixel = first.grid.pixel
    rows = {
        "correlation of the phases": f"{correlation(a, b):.4f}",
        "slope of the phases": f"{slope(a, b):.4f}",
        "NRMSE": f"{nrmse(b - b.mean(), a - a.mean()):.3f}",
        "shift": ", ".join(f"{s:+.2f}" for s in shift) + " pixels (y, x)",
        "object pixel": " × ".join(f"{p:.4g}" for p in pixel) + " Å",
    }
    probes = [probe_modes(model).waves for model in (second, first)]
    if probes[0].shape[1:] == probes[1].shape[1:]:
        rows["fidelity of the probes"] = (
            f"{probe_fidelity(probes[0], probes[1], np.array(pixel)).fidelity:.4f}"
        )
    return rows, Compared(a, b, pixel, taper(a.shape))


def common_phases(first: Model, second: Model) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Phases [rad] of two models in their common area, registered and without ramp.

    Also the shift [pixels].
    """
    offsets = np.zeros(2), np.subtract(second.frame, first.frame)  # into the frame of the first
    both = zip((first, second), offsets, strict=True)
    low, size = common_area(first, second)
    corners = [
        np.rint((low - origin(model) - offset) / model.grid.pixel).astype(int)
        for model, offset in both
    ]
    fixed, moving = (flat_phases(model).sum(0) for model in (first, second))

    def cut(image: np.ndarray, corner: np.ndarray) -> np.ndarray:
        (y, x), (ny, nx) = corner, size
        return image[y : y + ny, x : x + nx]

    a = without_ramp(cut(fixed, corners[0]))
    spectrum = np.fft.fft2(moving)
    shift = np.zeros(2)

    def moved_by(shift: np.ndarray) -> np.ndarray:
        return without_ramp(cut(np.fft.ifft2(fourier_shift(spectrum, shift)).real, corners[1]))

    for _ in range(4):  # cut again at each shift, as changing edges would bias it towards zero
        shift = shift + register(tapered(a), tapered(moved_by(shift))).shift
    return a, moved_by(shift), shift


def common_area(first: Model, second: Model) -> tuple[np.ndarray, np.ndarray]:
    """Corner (y, x) [Å, in the frame of the first] and size [pixels] of the area of both scans.

    Raises ValueError if it is too small.
    """
    both = [(first, np.zeros(2)), (second, np.subtract(second.frame, first.frame))]
    places = [probe_positions(model) + offset for model, offset in both]
    low = np.max([p.min(0) for p in places], axis=0)
    high = np.min([p.max(0) for p in places], axis=0)
    low, high = shrink_box(low, high, [outline(*pair) for pair in both])
    size = np.floor((high - low) / first.grid.pixel).astype(int)
    if size.min() < MIN_SIDE:
        raise ValueError(
            f"the two scans share {size[0]} × {size[1]} pixels; at least {MIN_SIDE} × {MIN_SIDE} "
            "are required to compare what was reconstructed from them"
        )
    return low, size


def shrink_box(low: np.ndarray, high: np.ndarray, outlines: list) -> tuple[np.ndarray, np.ndarray]:
    """Box between `low` and `high` (y, x), reduced until its corners are inside all outlines."""
    middle = (low + high) / 2
    half = (high - low) / 2
    corners = half * np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
    for factor in np.linspace(1, 0.02, 99):
        if all((hull.find_simplex(middle + factor * corners) >= 0).all() for hull in outlines):
            return middle - factor * half, middle + factor * half
    raise ValueError(
        "the scans of the two results do not overlap; only results of the same area are compared"
    )


def write_curve(path: Path, curve: FourierCorrelation) -> None:
    """Write the correlation with its thresholds and the signal-to-noise ratio as a table."""
    columns = {
        "frequency_inverse_angstrom": curve.frequency,
        "correlation": curve.correlation,
        **{name.replace("-", "_"): level(curve.samples) for name, level in THRESHOLDS.items()},
        "ssnr": curve.ssnr,
        "samples": curve.samples,
    }
    write_table(path, list(columns), zip(*columns.values(), strict=True))
