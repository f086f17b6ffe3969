"""First model of a tilt series from its views, for the end-to-end reconstruction."""

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
from ..physics.types import Numbers, Stack
from ..start.descan import descan_shift
from ..start.guess import first_detector, model_grid, per_shot
from .projections import MIN_TILT_RANGE, Geometry, axis_frame, three

STRIP = 2.0  # Å outside a face
EDGE = 0.4  # of the scan, distance of the tilt axis from the middle that counts as the edge
MARGIN = 4.0  # Å around the windows of all views, left for changes of the shifts


def first_series(
    data: Dataset,
    potential: Stack,
    voxel: Numbers,
    geometry: Geometry,
    probe: AbstractProbe,
    *,
    slices: int,
    supersample: int = 1,
    extend: int = 1,
    descan: str = "auto",
    **options: Any,
) -> Model:
    """Model of a full tilt series: a volume [V] centred on the tilt axis, and one probe.

    `probe` is that at the height of the tilt axis, as reconstructed from views with one thin slice;
    it is propagated to the middle of the first of the `slices`. Each view has a separate tilt,
    shift and positions, and separate angles if `geometry` has some. The model may be finer than
    the detector, and its patterns shifted, as in `first_model`. `options` are further keywords of
    `Volume`. Outside the volume is vacuum: see `require_field` for films.
    """
    voxel = three(voxel)
    grid = model_grid(data.grid, supersample, extend)
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
    """Raise ValueError unless there is one tilt for each view, and the tilts differ."""
    tilts = np.asarray(geometry.tilts)
    if len(tilts) != data.n_views:
        raise ValueError(
            f"{len(tilts)} tilts came with {data.n_views} views; give one tilt for each of them"
        )
    if np.ptp(tilts) < MIN_TILT_RANGE:
        raise ValueError(
            f"all tilts are {np.rad2deg(tilts.mean()):.4g}° within 1°, which tells nothing of the "
            "depth; give the tilts [rad] of a series"
        )


def require_field(
    data: Dataset,
    shape: tuple[int, ...],
    voxel: Numbers,
    geometry: Geometry,
    radius: float = 0.0,
) -> None:
    """Raise ValueError unless the volume of `shape` voxels covers every position of every view.

    For films, not for particles: it must also cover the area that a probe of `radius` [Å]
    illuminates around each position. A view at θ shows X cos θ + Z sin θ of a volume X wide and Z
    deep.
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
                f"view {view}, at {np.rad2deg(tilt):.4g}°, is scanned to "
                f"{beyond[axis] - radius:.4g} Å from the tilt axis in {'yx'[axis]}, and "
                f"illuminated {radius:.3g} Å further, where the volume ends at {half[axis]:.4g} "
                "Å; make it larger, or set specimen.isolated = true where vacuum is around it"
            )


def off_axis(data: Dataset) -> str | None:
    """Reason to suspect that positions are not counted from the tilt axis.

    In every view the axis is then at the edge of the scan, or outside.
    """
    if data.tilts is None:
        return None
    low, high = (np.stack([limit(own, 0) for own in data.positions]) for limit in (np.min, np.max))
    aside = (np.abs(low + high) / 2 > EDGE * np.maximum(high - low, 1e-9)).all(0)
    if not aside.any():
        return None
    axis = int(np.argmax(aside))
    return (
        "in every view the tilt axis (position 0) is at the edge of the scan or outside of it: "
        f"view 0 is scanned from {low[0, axis]:.4g} to {high[0, axis]:.4g} Å along {'yx'[axis]}; "
        'positions of a tilt series are counted from the axis, so set data.origin = "middle" if '
        "they are counted from the corner of the scan and the axis goes through its middle"
    )


def at_faces(
    volume: Float[np.ndarray, "z y x"], voxel: Numbers, size: Numbers, reach: Numbers
) -> Float[np.ndarray, "2 2"]:
    """Mean of a volume in the `STRIP` outside the faces of a box, over that within.

    Faces (low, high) across y and across x. The box of `size` (z, y, x) [Å] is in the middle of a
    `volume` that covers the scanned area, `reach` (y, x) [Å]; a strip beyond that counts as empty.
    Faces across z are left out: a missing wedge elongates the density in that direction.
    """
    size = np.asarray(size)
    reach = np.asarray(reach)
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
    if geometry.angles is not None:  # a rotation about the beam moves the corners outwards
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
