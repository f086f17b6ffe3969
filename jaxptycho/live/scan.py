"""Scan of a live series: its grid, positions and bright-field disc, from the first frames."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Num

from ..direct.bright_field import BrightField, bright_field_in
from ..direct.centre_of_mass import CentreOfMass
from ..direct.moments import Moments
from ..direct.transfer import Optics
from ..direct.virtual_detector import VirtualDetector, ring_segments
from ..io.instrument import grid_of
from ..io.readers.completion import missing_sentence
from ..io.readers.detector import with_detector
from ..io.readers.frames import array_frames
from ..io.readers.stream import announced, commanded_positions
from ..io.scan_layout import ScanLayout
from ..io.stream import Series
from ..physics.grids import Grid
from ..start.rim import first_circle

DARK = 1.1  # semiangles at which the dark field begins
GRIDS = ("voltage_kv", "wavelength_angstrom", "pixel_angstrom", "dk_inverse_angstrom")


@dataclass(frozen=True, eq=False)
class LiveScan:
    """What processors have to know of a series before its frames.

    Positions are the commanded ones until measured ones come; `matrix` maps both from the axes of
    the scan to those of the detector, about the `middle` of the commanded scan [Å].
    """

    grid: Grid
    positions: Float[np.ndarray, "shot 2"]  # Å (y, x), from `middle`
    dtype: np.dtype
    semiangle: float  # rad
    centre: tuple[float, float]  # rad (y, x), of the disc from the middle of the camera
    defocus: float  # Å, that the camera states
    matrix: Float[np.ndarray, "2 2"] = field(default_factory=lambda: np.eye(2))
    middle: Float[np.ndarray, "2"] = field(default_factory=lambda: np.zeros(2))
    unplaced: Bool[np.ndarray, " shot"] | None = None  # shots whose measured position is awaited

    def lens(self, **aberrations: float) -> Optics:
        """Aperture with aberrations [Å], by default the stated defocus."""
        given = aberrations or {"defocus": self.defocus}
        edge = max(self.grid.dk)
        return Optics.of(1e3 * self.semiangle, self.grid.wavelength, edge, **given)

    def placed(self, measured: Float[np.ndarray, "shot 2"]) -> "LiveScan":
        """The scan at measured positions [Å] on its own axes; NaN where one has not come yet."""
        unplaced = np.isnan(measured[:, 0])
        mapped = (measured - self.middle) @ self.matrix.T
        positions = np.where(unplaced[:, None], self.positions, mapped)
        return replace(self, positions=positions, unplaced=unplaced)

    def turned(self, matrix: Float[np.ndarray, "2 2"]) -> "LiveScan":
        """The scan whose positions are mapped further, by `matrix` on (y, x)."""
        return replace(self, positions=self.positions @ matrix.T, matrix=matrix @ self.matrix)

    def usable(self, seen: Bool[np.ndarray, " shot"]) -> Bool[np.ndarray, " shot"]:
        """Shots among those `seen` whose positions are known."""
        return seen if self.unplaced is None else seen & ~self.unplaced

    @property
    def disc(self) -> tuple[float, float, float]:
        """Place (y, x) and radius of the disc in pixels of a pattern as the camera shows it."""
        step = np.multiply(self.grid.dk, self.grid.wavelength)
        y, x = np.divide(self.centre, step) + np.array(self.grid.shape) // 2
        return float(y), float(x), self.semiangle / float(np.sqrt(np.prod(step)))


def scan_of(
    series: Series, first: Num[np.ndarray, "n y x"], layout: dict[str, Any] | None = None
) -> LiveScan:
    """Scan of a series, its disc from its `first` frames in the layout of the camera.

    `layout` maps the axes of the scan to those of the detector (`io.scan_layout`). Raises
    ValueError that names what neither the camera nor the user gives.
    """
    reading = announced(series, Path(series.name))
    sampled = with_detector(replace(reading, patterns=array_frames(first)))
    reading = replace(reading, values=sampled.values)
    if (absent := missing_sentence(reading)) is not None:
        raise ValueError(absent)
    positions = commanded_positions(series)
    if positions is None:
        shape = series.about.get("scan_shape")
        raise ValueError(
            f"series {series.name} announces {series.frames} frames, and a scan of {shape} was "
            "given; correct it with --set scan_shape=[Y,X]"
        )
    stated = {name: reading[name].value for name in GRIDS if name in reading.values}
    if "dk_inverse_angstrom" in stated:
        stated.pop("pixel_angstrom", None)
    grid = grid_of(stated, series.shape, series.name)
    semiangle, centre = _disc(series, grid, first)
    matrix = ScanLayout.taken_from(dict(layout or {})).matrix
    middle = np.mean(positions, 0, dtype=float)
    mapped = (positions - middle) @ matrix.T
    kind = series.dtype.newbyteorder("=")
    defocus = float(series.about.get("defocus_angstrom", 0.0))
    return LiveScan(grid, mapped, kind, semiangle, centre, defocus, matrix, middle)


def linear_processors(
    scan: LiveScan,
) -> tuple[Moments, VirtualDetector, CentreOfMass, BrightField]:
    """Processors of all that is a sum over patterns: their results are exact at any time."""
    n_shots = len(scan.positions)
    widest = min(n * dk for n, dk in zip(scan.grid.shape, scan.grid.dk, strict=True))
    rings = (0.0, scan.semiangle), (DARK * scan.semiangle, 2 * widest * scan.grid.wavelength)
    masks = np.concatenate([ring_segments(scan.grid, *r, centre=scan.centre) for r in rings])
    return (
        Moments(scan.grid.shape),
        VirtualDetector(masks, scan.grid, n_shots, scan.centre),
        CentreOfMass(scan.grid, n_shots, scan.centre),
        bright_field_in(scan.grid, n_shots, scan.dtype, scan.semiangle, scan.centre),
    )


def _disc(series: Series, grid: Grid, first: Num[np.ndarray, "n y x"]):
    """Semiangle [rad] and centre (y, x) [rad] of the disc."""
    stated = series.about.get("semiangle_mrad")
    circle = first_circle(first.sum(0, dtype=float))
    step = np.multiply(grid.dk, grid.wavelength)
    if circle is None:
        if stated is None:
            raise ValueError(
                f"the first {len(first)} frames of series {series.name} show no bright-field disc; "
                "give its angle, as in --set semiangle_mrad=21"
            )
        return 1e-3 * stated, (0.0, 0.0)
    y, x = (circle.centre * step).tolist()
    measured = circle.radius * float(np.sqrt(np.prod(step)))
    return measured if stated is None else 1e-3 * stated, (y, x)
