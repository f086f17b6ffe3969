"""From the views of a tilt series to one model of all of them: the end-to-end reconstruction begins here."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float

from ..data import Dataset
from ..model import Model, require_inside
from ..parts.indexed import PerView
from ..parts.probe import AbstractProbe
from ..parts.scan import FreeScan
from ..parts.volume import Volume
from ..physics import volumes
from ..physics.grids import Grid
from ..physics.types import Stack
from ..start.descan import descan_shift
from ..start.guess import first_detector, model_grid, per_shot
from .projections import LEAST_RANGE, Geometry, axis_frame, three

STRIP = 2.0  # Å outside a face
EDGE = 0.4  # of the scan, beyond which from its middle the tilt axis is at its edge
MARGIN = 4.0  # Å around the windows of all views, by which shifts may still move


def first_series(
    data: Dataset,
    potential: Stack,
    voxel,
    geometry: Geometry,
    probe: AbstractProbe,
    *,
    slices: int,
    supersample: int = 1,
    extend: int = 1,
    descan: str = "auto",
    **options,
) -> Model:
    """The model of a whole tilt series: a volume [V], whose middle lies on the tilt axis, and the probe of all views.

    `probe` is that at the height of the tilt axis, as views reconstructed with one thin slice find it, and is brought
    to the middle of the first of the `slices`. Each view has its own tilt, shift, positions, and its own angles where `geometry` has
    some. The model may be finer than the detector, and its patterns shifted, as in `first_model`. `options` are further keywords of `Volume`.
    Outside the volume is vacuum: see `require_field` for films.
    """
    voxel, grid = three(voxel), model_grid(data.grid, supersample, extend)
    require_tilts(data, geometry)
    depth = volumes.depth_of(potential.shape, voxel, slices, geometry.tilts, geometry.angles)
    tilts: Any = PerView(geometry.tilts)
    angles: Any = None if geometry.angles is None else PerView(geometry.angles)
    volume = Volume(
        potential,
        voxel,
        tilts,
        slices,
        angles=angles,
        shift=PerView(geometry.shifts),
        depth=depth,
        shape=_field(data, grid, voxel, geometry),
        **options,
    )
    scan = FreeScan(per_shot(data))
    detector = first_detector(data, None, supersample, extend, descan_shift(data, descan))
    model = Model(probe.propagate(grid, -volume.above), volume, scan, grid, detector=detector)
    for view in range(data.n_views):
        require_inside(model, view)
    return model


def require_tilts(data: Dataset, geometry: Geometry) -> None:
    """ValueError unless there is one tilt for each view, and not the same for all."""
    tilts = np.asarray(geometry.tilts)
    if len(tilts) != data.n_views:
        raise ValueError(
            f"{len(tilts)} tilts came with {data.n_views} views; give one tilt for each of them"
        )
    if np.ptp(tilts) < LEAST_RANGE:
        raise ValueError(
            f"all tilts are {np.rad2deg(tilts.mean()):.4g}° within 1°, which tells nothing of the depth; "
            "give the tilts [rad] of a series"
        )


def require_field(
    data: Dataset, shape: tuple[int, ...], voxel, geometry: Geometry, radius: float = 0.0
) -> None:
    """ValueError unless the volume of `shape` voxels holds every position of every view, and what a probe of `radius`
    [Å] lights around it: for films, not for particles.

    A view at θ sees X cos θ + Z sin θ of a volume X wide and Z deep.
    """
    z, y, x = (n * p for n, p in zip(shape, three(voxel), strict=True))
    for view, (tilt, shift) in enumerate(
        zip(np.asarray(geometry.tilts), np.asarray(geometry.shifts), strict=True)
    ):
        half = np.array([y, x * abs(math.cos(tilt)) + z * abs(math.sin(tilt))]) / 2
        turned = 0.0 if geometry.angles is None else float(geometry.angles[view, 1])
        beyond = np.abs((data.positions[view] - shift) @ axis_frame(-turned).T).max(0) + radius
        if (beyond > half).any():
            axis = int(np.argmax(beyond - half))
            raise ValueError(
                f"view {view}, at {np.rad2deg(tilt):.4g}°, is scanned to {beyond[axis] - radius:.4g} Å from the tilt axis in "
                f"{'yx'[axis]}, and lit {radius:.3g} Å further, where the volume ends at {half[axis]:.4g} Å; make it larger, or call it isolated "
                "(specimen.isolated) where vacuum is around it"
            )


def off_axis(data: Dataset) -> str | None:
    """Why positions seem not to be counted from the tilt axis: in every view it is at the edge of the scan, or outside."""
    if data.tilts is None:
        return None
    low, high = (np.stack([limit(own, 0) for own in data.positions]) for limit in (np.min, np.max))
    aside = (np.abs(low + high) / 2 > EDGE * np.maximum(high - low, 1e-9)).all(0)
    if not aside.any():
        return None
    axis = int(np.argmax(aside))
    return (
        f"in every view the tilt axis (position 0) is at the edge of the scan or outside of it: view 0 is scanned from "
        f"{low[0, axis]:.4g} to {high[0, axis]:.4g} Å along {'yx'[axis]}; positions of a tilt series are counted from the "
        'axis, so set data.origin = "middle" if they are counted from the corner of the scan and the axis goes through its middle'
    )


def at_faces(volume, voxel, size, reach) -> Float[np.ndarray, "2 2"]:
    """How much of a specimen stands in the `STRIP` outside the faces (low, high) of a box across y and across x: the mean
    there over that within.

    The box of `size` (z, y, x) [Å] lies in the middle of a `volume` that holds all that was scanned, which `reach`
    (y, x) [Å] is; a strip beyond that counts as empty. Faces across z are left out: there a missing wedge draws out what
    is inside.
    """
    places = [
        (np.arange(n) - n // 2) * step for n, step in zip(volume.shape, three(voxel), strict=True)
    ]
    inside = [np.abs(place) <= length / 2 for place, length in zip(places, size, strict=True)]
    within = max(float(np.mean(volume[np.ix_(*inside)])), 1e-30)
    found = np.zeros((2, 2))
    for axis in (1, 2):
        for side, sign in enumerate((-1, 1)):
            beyond = sign * places[axis] - size[axis] / 2
            chosen = [
                (beyond > 0) & (beyond <= STRIP) if a == axis else own
                for a, own in enumerate(inside)
            ]
            if size[axis] / 2 + STRIP <= reach[axis - 1] and all(own.any() for own in chosen):
                found[axis - 1, side] = np.mean(volume[np.ix_(*chosen)]) / within
    return found


def _field(data: Dataset, grid: Grid, voxel, geometry: Geometry) -> tuple[int, int]:
    """Pixels (y, x) of slices that hold the windows of all views and a margin."""
    shifts = np.asarray(geometry.shifts)
    reach = np.max(
        [np.abs(p - s).max(0) for p, s in zip(data.positions, shifts, strict=True)], axis=0
    )
    pixels = 2 * np.ceil((reach + MARGIN) / voxel[1:]).astype(int) + np.array(grid.shape) + 2
    if geometry.angles is not None:  # a turn about the beam meets what is within its corners
        turned = np.abs(np.asarray(geometry.angles)[:, 1])
        sizes = pixels * voxel[1:]
        wide = [
            np.cos(turned) * own + np.sin(turned) * other
            for own, other in zip(sizes, sizes[::-1], strict=True)
        ]
        pixels = np.maximum(
            pixels, np.ceil(np.max(wide, 1) / voxel[1:] - MARGIN / np.array(voxel[1:]))
        )
    return int(pixels[0]), int(pixels[1])
