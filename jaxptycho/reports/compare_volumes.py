"""Agreement of two volumes: gauge removed, Fourier shell correlation, resolution by direction."""

from pathlib import Path
from typing import Any

import numpy as np

from ..analysis.images import nrmse
from ..analysis.shells import taper
from ..analysis.volumes import align_volume
from ..figures.plots import save
from ..figures.volumes import draw_directional
from ..model import Model
from .evaluate_spectrum import Compared
from .evaluate_volume import gauge_rows


def compare_volumes(
    first: Model, second: Model, folder: Path | None
) -> tuple[dict[str, str], Compared]:
    """Agreement of two volumes as rows, the gauge of the second removed, and both as correlated."""
    a, b = _volumes(first, second)
    voxel: Any = np.array(a.voxel)
    fixed, moving = (np.asarray(v.seen, float) for v in (a, b))
    fixed, moving = crop_to_common(fixed, moving)
    gauge = align_volume(moving, fixed, voxel)
    window = taper(fixed.shape)
    if folder is not None:
        save(
            draw_directional(fixed, gauge.volume, voxel, level=0.143, window=window),
            folder / "fsc_directions.png",
        )
    inside = gauge.inside
    agreement = np.corrcoef(fixed[inside], gauge.volume[inside])[0, 1]
    rows = {
        "correlation of the potentials": f"{agreement:.4f}",
        "NRMSE": f"{nrmse(gauge.volume, fixed, inside):.3f}",
    }
    return rows | gauge_rows(gauge) | {
        "voxel": " × ".join(f"{v:.4g}" for v in voxel) + " Å"
    }, Compared(fixed, gauge.volume, a.voxel, window)


def crop_to_common(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both volumes cut about their middle voxels [n//2, …] to their common shape."""
    shape = np.minimum(first.shape, second.shape)

    def cut(volume: np.ndarray) -> np.ndarray:
        begin = np.array(volume.shape) // 2 - shape // 2
        return volume[tuple(slice(b, b + n) for b, n in zip(begin, shape, strict=True))]

    return cut(first), cut(second)


def _volumes(first: Model, second: Model) -> tuple[Any, Any]:
    """Both specimens as volumes; one without voxels is sampled on those of the other."""
    a: Any = first.specimen.in_voxels(first.grid, second.specimen)
    b: Any = second.specimen.in_voxels(second.grid, first.specimen)
    if not np.allclose(a.voxel, b.voxel, rtol=1e-4):
        raise ValueError(
            f"voxels of {a.voxel[0]:g} Å came with ones of {b.voxel[0]:g} Å; only results on the "
            "same grid are compared"
        )
    return a, b
