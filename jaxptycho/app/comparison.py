"""How far two results agree: registered phases, Fourier ring correlation, resolution."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.ndimage import fourier_shift

from ..analysis.gauge import correlation, register, without_ramp
from ..analysis.resolution import RingCorrelation, half_bit, ring_correlation, tapered
from ..analysis.scanned import origin, outline
from ..io.results import load
from ..model import Model, positions
from . import plots
from .pictures import flat_phases
from .run import refuse_existing, start
from .schema import Job
from .watch import Watch


def compare_results(first: Path, second: Path, out: Path | None = None) -> dict[str, str]:
    """How well two results agree, in words; the ring correlation as figure and table in the folder `out`."""
    one, other = (load(path / "result.h5" if path.is_dir() else path) for path in (first, second))
    if not np.allclose(one.grid.pixel, other.grid.pixel, rtol=1e-4):
        raise ValueError(
            f"{first} has pixels of {one.grid.pixel[0]:g} Å and {second} of {other.grid.pixel[0]:g} Å; "
            "only results on the same grid are compared"
        )
    if out is not None:
        refuse_existing(out)
        out.mkdir(parents=True)
    return report(one, other, out)


def compare_halves(job: Job, folder: Path, watch: Callable[[], Watch] = Watch) -> dict[str, str]:
    """Both halves of a checkerboard reconstructed alone in `folder`, sharing nothing, and how well they agree."""
    refuse_existing(folder)

    def reconstructed(half: str) -> Model:
        own = job.model_copy(update={"data": job.data.model_copy(update={"half": half})})
        outcome = start(own, folder / half, watch())
        if not outcome.finished:
            raise ValueError(
                f"the {half} half was stopped by {outcome.why}; finish it with `jaxptycho resume {outcome.folder}`"
            )
        return outcome.model

    return report(reconstructed("black"), reconstructed("white"), folder)


def report(first: Model, second: Model, folder: Path | None) -> dict[str, str]:
    """The agreement of two models in words; `frc.png` and `frc.csv` in `folder`."""
    a, b, shift = common_phases(first, second)
    curve = ring_correlation(tapered(a), tapered(b), first.grid.pixel[0])
    if folder is not None:
        plots.save(plots.draw_ring_correlation(curve), folder / "frc.png")
        write_curve(folder / "frc.csv", curve)
    return {
        "correlation of the phases": f"{correlation(a, b):.4f}",
        "shift": ", ".join(f"{s:+.2f}" for s in shift) + " pixels (y, x)",
        "half-bit resolution": f"{curve.resolution(half_bit):.4g} Å",
        "object pixel": f"{first.grid.pixel[0]:.4g} Å",
    }


def common_phases(first: Model, second: Model) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Phases [rad] of two models where both were scanned, registered and without ramp; the shift [pixels]."""
    places = [positions(model) for model in (first, second)]
    low = np.max([p.min(0) for p in places], axis=0)
    high = np.min([p.max(0) for p in places], axis=0)
    low, high = shrunk(low, high, [outline(model) for model in (first, second)])
    size = np.floor((high - low) / first.grid.pixel).astype(int)
    if size.min() < 8:
        raise ValueError(f"the scans of the two results share {size[0]} × {size[1]} pixels; at least 8 × 8 are wanted")
    corners = [np.rint((low - origin(model)) / model.grid.pixel).astype(int) for model in (first, second)]
    fixed, moving = (flat_phases(model).sum(0) for model in (first, second))

    def cut(image, corner):
        (y, x), (ny, nx) = corner, size
        return image[y : y + ny, x : x + nx]

    a = without_ramp(cut(fixed, corners[0]))
    spectrum, shift = np.fft.fft2(moving), np.zeros(2)

    def moved_by(shift):
        return without_ramp(cut(np.fft.ifft2(fourier_shift(spectrum, shift)).real, corners[1]))

    for _ in range(4):  # cut anew at each shift, for what enters and leaves at the edges pulls towards none
        shift = shift + register(tapered(a), tapered(moved_by(shift))).shift
    return a, moved_by(shift), shift


def shrunk(low: np.ndarray, high: np.ndarray, outlines: list) -> tuple[np.ndarray, np.ndarray]:
    """The box between `low` and `high` (y, x), made smaller until its corners lie inside all outlines."""
    middle, half = (low + high) / 2, (high - low) / 2
    corners = half * np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
    for factor in np.linspace(1, 0.02, 99):
        if all((hull.find_simplex(middle + factor * corners) >= 0).all() for hull in outlines):
            return middle - factor * half, middle + factor * half
    raise ValueError("the scans of the two results do not overlap; only results of the same area are compared")


def write_curve(path: Path, curve: RingCorrelation) -> None:
    """The ring correlation as a table."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["frequency_inverse_angstrom", "correlation", "half_bit", "samples"])
        rows.writerows(zip(curve.frequency, curve.correlation, half_bit(curve.samples), curve.samples, strict=True))
