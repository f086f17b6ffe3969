"""Layout of a scan: order of its shots, and the map from the scan's axes to the detector's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from ..data.orientation import SCAN_TRANSFORMS
from .axis import QUARTER

SCAN_ORDERS = ("raster", "serpentine", "file")
KEYS = {"scan_transform": "transform", "rotation_deg": "rotation_deg", "scan_affine": "affine"}


@dataclass(frozen=True)
class ScanLayout:
    """Map from the positions of a file, or of a raster, to those on the detector's axes.

    First `affine`, a matrix on (y, x), corrects scale and skew of the scan; then `transform`, one
    of `SCAN_TRANSFORMS`, exchanges or flips its axes; then `rotation_deg` rotates it
    counter-clockwise as seen with y downwards (90 is the transform "rotate_90").
    """

    transform: str = "none"
    rotation_deg: float = 0.0
    affine: Sequence[Sequence[float]] = ((1.0, 0.0), (0.0, 1.0))

    def __post_init__(self):
        if self.transform not in SCAN_TRANSFORMS:
            raise ValueError(
                f"no scan_transform is called {self.transform!r}; known are "
                f"{', '.join(SCAN_TRANSFORMS)}"
            )
        if not np.isfinite(self.rotation_deg):
            raise ValueError(f"rotation_deg = {self.rotation_deg}; a number of degrees is required")
        require_map(self.affine)

    @classmethod
    def taken_from(cls, known: dict[str, Any]) -> "ScanLayout":
        """Layout among `known` properties, which is removed from them."""
        given = {KEYS[name]: known.pop(name) for name in KEYS if name in known}
        return cls(**{name: value for name, value in given.items() if value is not None})

    @property
    def matrix(self) -> Float[np.ndarray, "2 2"]:
        """Matrix on (y, x) of all three."""
        angle = np.deg2rad(self.rotation_deg)
        c, s = np.cos(angle), np.sin(angle)
        transform = np.array(SCAN_TRANSFORMS[self.transform], float)
        return np.array([[c, -s], [s, c]]) @ transform @ np.asarray(self.affine, float)

    def applied(
        self, positions: Sequence[np.ndarray], series: bool = False, turns: int = 0
    ) -> list[np.ndarray]:
        """Positions (y, x) of all views, each mapped about its middle.

        Those of a tilt `series` are mapped about their origin, through which the tilt axis goes.
        `turns` are the quarter turns by which the patterns, and these positions, were rotated.
        """
        if np.array_equal(self.matrix, np.eye(2)):
            return list(positions)
        turn = np.linalg.matrix_power(QUARTER, turns)
        matrix = turn @ self.matrix @ turn.T
        middles = [np.zeros(2) if series else own.mean(0) for own in positions]
        pairs = zip(positions, middles, strict=True)
        return [(own - middle) @ matrix.T + middle for own, middle in pairs]


def require_map(matrix: Sequence[Sequence[float]]) -> None:
    """Raise ValueError for a matrix that is no invertible map of the plane."""
    made = np.asarray(matrix, float)
    if made.shape != (2, 2) or not np.isfinite(made).all() or np.linalg.det(made) == 0:
        raise ValueError(
            f"affine = {matrix}; an invertible matrix [[yy, yx], [xy, xx]] on (y, x) is required"
        )


def raster_positions(
    shape: Sequence[int],
    step: float | Sequence[float],
    order: str = "raster",
    lines: Literal["x", "y"] = "x",
) -> Float[np.ndarray, "shot 2"]:
    """Positions (y, x) [Å] of a scan of `shape` with its corner at zero, in the order of its shots.

    They follow one another along `lines`; a "serpentine" runs every second line backwards.
    """
    y, x = np.broadcast_to(np.asarray(step, float), 2)
    rows, columns = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    if order == "serpentine":
        rows, columns = _serpentine(rows, columns, lines)
    if lines == "y":
        rows, columns = rows.T, columns.T
    return np.stack([y * rows.ravel(), x * columns.ravel()], -1)


def _serpentine(
    rows: np.ndarray, columns: np.ndarray, lines: Literal["x", "y"]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of a grid with every second line backwards."""
    ny, nx = rows.shape
    if lines == "x":
        return rows, np.where(rows % 2 == 1, nx - 1 - columns, columns)
    return np.where(columns % 2 == 1, ny - 1 - rows, rows), columns
