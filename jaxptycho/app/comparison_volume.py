"""How far two volumes agree that were reconstructed apart: one laid onto the other, and their shell correlation."""

import csv
from pathlib import Path
from typing import Any

import numpy as np

from ..analysis.gauge import correlation
from ..analysis.resolution import THRESHOLDS, FourierCorrelation, fourier_correlation
from ..analysis.shells import taper
from ..analysis.volumes import align_volume
from ..model import Model
from ..parts.volume import Volume
from .plots import save
from .plots_resolution import draw_correlation


def report_volumes(first: Model, second: Model, folder: Path | None) -> dict[str, str]:
    """The agreement of two models of volumes in words, the second one turned, shifted and scaled onto the first;
    `fsc.png` and `fsc.csv` in `folder`."""
    one, other = (model.specimen for model in (first, second))
    if not isinstance(one, Volume) or not isinstance(other, Volume):
        kinds = " and a ".join(type(specimen).__name__ for specimen in (one, other))
        raise ValueError(f"a {kinds} came; only a volume is compared with a volume")
    voxel: Any = np.array(one.voxel)
    if not np.allclose(other.voxel, voxel, rtol=1e-4):
        raise ValueError(
            f"voxels of {one.voxel} and {other.voxel} Å came; only volumes of the same voxels are compared"
        )
    a, b = common_box(*(np.asarray(volume.seen, float) for volume in (one, other)))
    laid = align_volume(b, a, voxel)
    curve = fourier_correlation(a, laid.volume, voxel, taper(a.shape))
    if folder is not None:
        save(draw_correlation(curve), folder / "fsc.png")
        write_curve(folder / "fsc.csv", curve)
    hand = {"hand": "they are mirror images in z"} if laid.mirrored else {}
    return {
        "correlation of the potentials": f"{correlation(a, laid.volume):.4f}",
        "shift": ", ".join(f"{s:+.2f}" for s in laid.shift) + " Å (z, y, x)",
        "rotation": ", ".join(f"{angle:+.2f}" for angle in laid.angles) + " ° (about y, x, z)",
        **hand,
        **resolutions(curve),
        "voxel": " × ".join(f"{v:.4g}" for v in voxel) + " Å",
    }


def common_box(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two volumes cut to the voxels that both have, the middle ones [n//2, …] kept."""
    sizes = np.minimum(one.shape, other.shape)

    def cut(volume):
        begins = np.array(volume.shape) // 2 - sizes // 2
        return volume[tuple(slice(b, b + n) for b, n in zip(begins, sizes, strict=True))]

    return cut(one), cut(other)


def resolutions(curve: FourierCorrelation) -> dict[str, str]:
    """The resolution at every threshold for two halves."""
    return {f"{name} resolution": f"{curve.resolution(level):.4g} Å" for name, level in THRESHOLDS.items()}


def write_curve(path: Path, curve: FourierCorrelation) -> None:
    """The correlation with its thresholds and the signal-to-noise ratio as a table."""
    columns = {
        "frequency_inverse_angstrom": curve.frequency,
        "correlation": curve.correlation,
        **{name.replace("-", "_"): level(curve.samples) for name, level in THRESHOLDS.items()},
        "ssnr": curve.ssnr,
        "samples": curve.samples,
    }
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(columns)
        rows.writerows(zip(*columns.values(), strict=True))
