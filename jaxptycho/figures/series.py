"""Figures of the run of a tilt series: the volume, the poses of its views, and their fit."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..analysis.coverage import TiltSeries
from ..analysis.pictures import probe_modes
from ..data import Dataset
from ..io.exports import structure
from ..model import Model
from ..tomography.poses import poses_of
from .depth import draw_coverage
from .plots import draw_losses, draw_patterns, draw_probe, sample_patterns, save
from .volumes import draw_maxima, draw_power, draw_sections, draw_sums, draw_surfaces


def write_series_figures(
    folder: Path, model: Model, first: Model, data: Dataset, history: Sequence
) -> None:
    """Write all figures of a run whose specimen is a volume, or atoms in one, as PNG files.

    They are in `folder`; `first` is the model before.
    """
    specimen: Any = model.specimen.in_voxels(model.grid, first.specimen)
    volume = np.asarray(specimen.seen)
    voxel = np.array(specimen.voxel)
    poses = {"before": poses_of(first), "result": poses_of(model)}
    figures = {
        "sections": draw_sections(
            volume, voxel, atoms=structure(model) if model.specimen.listed_atoms() else None
        ),
        "sums": draw_sums(volume, voxel),
        "maxima": draw_maxima(volume, voxel),
        "power": draw_power(volume, voxel, data.tilts),
        "views": draw_poses(poses, np.asarray(data.tilts)),
        "probe": draw_probe(probe_modes(model), model),
        "patterns": draw_patterns(sample_patterns(model, data)),
    }
    if (angle := data.about.get("semiangle_mrad")) is not None:
        height = float(data.about.get("thickness_angstrom", volume.shape[0] * voxel[0]))
        series = TiltSeries(np.asarray(data.tilts), 1e-3 * angle, data.grid.wavelength, height)
        figures["coverage"] = draw_coverage(series, float(2 * voxel.max()))
    if specimen.absorptive is not None:
        figures["sections_absorptive"] = draw_sections(
            np.asarray(specimen.absorbing), voxel, what="absorptive potential"
        )
    if volume.max() > 0:
        figures["surfaces"] = draw_surfaces(volume, voxel)
    if history:
        figures["loss"] = draw_losses(history)
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        save(figure, folder / f"{name}.png")


def draw_poses(poses: Mapping[str, np.ndarray], tilts: np.ndarray) -> Figure:
    """Shift and deviation from the nominal `tilts` [rad] of every view.

    For each of several alignments by name.
    """
    figure = Figure((9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    degrees = np.rad2deg(tilts)
    for number, (name, pose) in enumerate(poses.items()):
        style = {"color": f"C{number}", "ls": ":" if number == 0 else "-"}
        for marker, column, axis in (("o", 3, "y"), ("^", 4, "x")):
            left.plot(degrees, pose[:, column], marker=marker, label=f"{axis}, {name}", **style)
        away = np.rad2deg(pose[:, :3] - np.stack([tilts, 0 * tilts, 0 * tilts], 1))
        for marker, column, axis in (("o", 0, "y"), ("^", 1, "x"), ("s", 2, "z")):
            right.plot(
                degrees, away[:, column], marker=marker, label=f"about {axis}, {name}", **style
            )
    left.set(xlabel="nominal tilt (°)", ylabel="shift (Å)", title="Shifts of the views")
    right.set(
        xlabel="nominal tilt (°)", ylabel="rotation (°)", title="Deviations from the nominal tilt"
    )
    for ax in (left, right):
        ax.legend(fontsize="small")
    return figure
