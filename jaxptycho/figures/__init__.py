"""Figures of models, measurements and results in physical units.

Every function returns a Matplotlib `Figure`, which notebooks display and `savefig(path)` writes.
"""

from collections.abc import Sequence
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..analysis.pictures import picture, probe_modes
from ..analysis.resolution import FourierCorrelation
from ..data import Dataset
from ..direct.image import DirectImage
from ..model import Model
from ..model import probe_positions as positions_of
from ..start.calibrate import Calibration
from ..tomography.poses import poses_of
from .calibration import draw_calibration
from .plots import (
    draw_image,
    draw_losses,
    draw_object,
    draw_patterns,
    draw_positions,
    draw_probe,
    draw_slices,
    sample_patterns,
)
from .resolution import draw_correlation
from .series import draw_poses
from .summary import draw_summary
from .volumes import draw_sections, draw_surfaces

__all__ = [
    "calibration",
    "direct",
    "loss",
    "mean_pattern",
    "object",
    "patterns",
    "poses",
    "positions",
    "probe",
    "resolution",
    "slices",
    "summary",
    "surfaces",
    "volume",
]


def object(model: Model, band_pass: tuple[float, float] | None = None) -> Figure:
    """Phase of the specimen on the scanned area, with its amplitude if it absorbs.

    `band_pass` gives the shortest and the longest period that is shown [Å]. A volume or atoms in
    one are drawn as three sections.
    """
    if model.specimen.rotates:
        return volume(model)
    if band_pass is None:
        return draw_object(picture(model))
    shown = picture(model, band_pass)
    title = f"Phase, {band_pass[0]:g}–{band_pass[1]:g} Å"
    return draw_image(shown.phase.sum(0), shown.pixel, title, "rad")


def summary(model: Model, data: Dataset, history: Sequence[Any] = ()) -> Figure:
    """Sheet of a result: object, its spectrum, probe, patterns, losses (`history`), and facts.

    Raises ValueError for the volume of a tilt series, of which `volume` and `poses` are drawn.
    """
    if model.specimen.rotates:
        raise ValueError("the specimen rotates; draw it with figures.volume and figures.poses")
    shown = picture(model)
    return draw_summary(
        model, data, history, shown, probe_modes(model), sample_patterns(model, data)
    )


def slices(model: Model) -> Figure:
    """Phase of every slice of the specimen on a common scale."""
    return draw_slices(picture(model))


def probe(model: Model) -> Figure:
    """Orthogonal probe modes in both spaces; brightness is amplitude, colour is phase."""
    return draw_probe(probe_modes(model), model)


def positions(model: Model, before: Model | None = None, view: int = 0) -> Figure:
    """Positions of the probe [Å], and their displacements since the model `before`."""
    after = positions_of(model, view) + model.frame
    start = after if before is None else positions_of(before, view) + before.frame
    return draw_positions(start, after, model.grid.pixel)


def patterns(model: Model, data: Dataset, count: int = 4) -> Figure:
    """Measured beside predicted patterns of `count` shots, on a square-root scale."""
    return draw_patterns(sample_patterns(model, data, count), count)


def mean_pattern(data: Dataset) -> Figure:
    """Mean of the measured patterns, on a square-root scale; one axis tick is a mrad."""
    milliradians = [1e3 * data.grid.wavelength * dk for dk in data.grid.dk]
    figure = Figure((5.5, 4.5), layout="constrained")
    ax = figure.subplots()
    half = [n / 2 * step for n, step in zip(data.grid.shape, milliradians, strict=True)]
    extent = (-half[1], half[1], half[0], -half[0])
    drawn = ax.imshow(np.sqrt(data.mean_pattern()), cmap="viridis", extent=extent)
    ax.set(xlabel="x (mrad)", ylabel="y (mrad)", title="Mean pattern")
    figure.colorbar(drawn, ax=ax, label="√counts")
    return figure


def direct(picture: DirectImage) -> Figure:
    """Picture of direct phase retrieval, rows along the scan's first axis; a caution below it."""
    figure = draw_image(picture.image, picture.pixel, picture.title, picture.unit)
    if picture.caution is not None:
        figure.supxlabel("\n".join(wrap(picture.caution, 90)), fontsize="small")
    return figure


def calibration(look: Calibration) -> Figure:
    """Sheet of a calibration (`jaxptycho.calibrate`)."""
    return draw_calibration(look)


def loss(history: Sequence[Any]) -> Figure:
    """Loss and held-out loss over the epochs of a history (`Result.history`)."""
    return draw_losses(history)


def volume(model: Model) -> Figure:
    """Three sections through the volume of a tilt series [V]."""
    found = _volume_of(model)
    return draw_sections(np.asarray(found.seen), np.array(found.voxel))


def surfaces(model: Model) -> Figure:
    """Surfaces of equal potential of the volume of a tilt series."""
    found = _volume_of(model)
    return draw_surfaces(np.asarray(found.seen), np.array(found.voxel))


def poses(models: dict[str, Model], data: Dataset) -> Figure:
    """Shifts and angles of the views of a tilt series, for each of several models by name."""
    if data.tilts is None:
        raise ValueError("the measurement has no tilts; poses are those of a tilt series")
    found = {name: poses_of(model) for name, model in models.items()}
    return draw_poses(found, np.asarray(data.tilts))


def resolution(curve: FourierCorrelation) -> Figure:
    """Fourier ring or shell correlation with its thresholds (`analysis.resolution`)."""
    return draw_correlation(curve)


def _volume_of(model: Model) -> Any:
    if not model.specimen.rotates:
        raise ValueError(
            "the specimen does not rotate; draw it with figures.object or figures.slices"
        )
    return model.specimen.in_voxels(model.grid, model.specimen)
