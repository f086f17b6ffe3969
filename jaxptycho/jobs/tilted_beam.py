"""Flat specimens at a few small tilts: the beam tilts, the slices stay (`start.tilt_coupled`)."""

from dataclasses import replace

import numpy as np

from ..data import Dataset
from ..model import Model
from ..start.tilt_coupled import require_small, tilt_coupled
from .sections import Setup, slices_of

EDGE = 4  # pixels around what the tilted windows reach


def require_tilted_beam(job: Setup, data: Dataset) -> None:
    """ValueError for a measurement without tilts or with large ones, a single slice, or a probe
    that is not brought to another height.
    """
    if data.tilts is None:
        raise ValueError(
            "propagator.tilted_beam requires the tilts of the views, which the file does not "
            "give; write tilt_deg [view] beside its counts"
        )
    if axis := data.about.get("tilt_axis_deg"):
        raise ValueError(
            f"the tilt axis is {axis:+.4g}° away from the axes of the patterns, along which "
            "propagator.tilted_beam requires it; reconstruct the views as a volume (specimen.kind "
            "= 'volume'), or rotate the patterns"
        )
    require_small(data.tilts)  # before they determine the size of the object
    if slices_of(job).slice_thicknesses_angstrom is not None:
        raise ValueError(
            "propagator.tilted_beam moves by the same distance from slice to slice, and "
            "specimen.slice_thicknesses_angstrom gives unequal ones; give slices and "
            "thickness_angstrom"
        )
    if (job.specimen.slices or 1) < 2:
        raise ValueError(
            "a tilted beam moves from slice to slice, and specimen.slices is 1; give the "
            "thickness and several slices"
        )
    if job.probe.kind == "relaxed":
        raise ValueError(
            "a relaxed probe cannot be combined with propagator.tilted_beam; take a pixel or an "
            "aberrated one"
        )


def axis_of(job: Setup, data: Dataset) -> float:
    """Height of the tilt axis below the entrance face [Å], by default half of the thickness."""
    thickness = slices_of(job).thickness_angstrom or data.about.get("thickness_angstrom") or 0.0
    given = job.propagator.axis_angstrom
    return thickness / 2 if given is None else given


def margin_of(job: Setup, data: Dataset) -> float:
    """Margin of the object beyond the upright windows [Å].

    The largest lateral displacement of the beam, and the margin of the job.
    """
    assert data.tilts is not None
    own = slices_of(job).margin_angstrom
    aside = abs(axis_of(job, data)) * float(np.tan(np.abs(data.tilts).max()))
    reach = float(np.abs(np.concatenate(data.positions)).max()) * (
        1 / float(np.cos(np.abs(data.tilts).max())) - 1
    )
    return aside + reach + (EDGE * max(data.grid.pixel) if own is None else own)


def tilted_beam(job: Setup, model: Model, data: Dataset) -> Model:
    """Model whose views' beams are tilted, and its probe, whose defocus a series gives at the tilt
    axis, at the entrance face."""
    axis = axis_of(job, data)
    upright = replace(model, probe=model.probe.propagate(model.grid, -axis))
    return tilt_coupled(upright, np.asarray(data.tilts), axis=axis)
