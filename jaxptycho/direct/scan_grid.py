"""Lattice of scan positions, rotated and sheared in any way, and its spatial frequencies.

Shots are entries of a grid with two step vectors; its frequencies Q are those of the reciprocal
lattice, so that a rotated scan requires no resampling. Up-sampling is the same with finer steps.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import KDTree

NEIGHBOURS = 9  # of a position, itself among them
MAX_OFFSET = 0.1  # steps between a position and its entry in the lattice
MIN_OCCUPANCY = 0.5  # fraction of the entries of a lattice that have a shot
MIN_ANGLE = 0.4  # sine of the smallest angle between the two steps


class ScanGrid(NamedTuple):
    """Entries [Y, X] at `origin` + i·`steps`[0] + j·`steps`[1], in the frame of the positions."""

    origin: Float[np.ndarray, "2"]  # Å (y, x) of entry [0, 0]
    steps: Float[np.ndarray, "2 2"]  # Å, displacement (y, x) to the next row and column
    shape: tuple[int, int]

    def upsampled(self, factor: int) -> "ScanGrid":
        """The same area with steps shorter by `factor`."""
        ny, nx = self.shape
        return ScanGrid(self.origin, self.steps / factor, (factor * ny, factor * nx))

    def padded(self, rows: int, columns: int) -> "ScanGrid":
        """The grid with entries added on all four sides."""
        origin = self.origin - np.array([rows, columns]) @ self.steps
        ny, nx = self.shape
        return ScanGrid(origin, self.steps, (ny + 2 * rows, nx + 2 * columns))

    def rotated(self, angle: float) -> "ScanGrid":
        """The grid rotated about the origin of the positions by `angle` [rad], x towards y."""
        turn = plane_rotation(angle)
        return ScanGrid(self.origin @ turn, self.steps @ turn, self.shape)

    def frequencies(self) -> Float[np.ndarray, "Y half 2"]:
        """Frequencies Q (y, x) [1/Å] of `rfft2` over the grid."""
        ny, nx = self.shape
        cycles = np.stack(np.meshgrid(np.fft.fftfreq(ny), np.fft.rfftfreq(nx), indexing="ij"), -1)
        return cycles @ np.linalg.inv(self.steps).T

    def places(self) -> Float[np.ndarray, "Y X 2"]:
        """Positions (y, x) [Å] of all entries."""
        rows = np.stack(np.meshgrid(*map(np.arange, self.shape), indexing="ij"), -1)
        return self.origin + rows @ self.steps

    @property
    def area(self) -> float:
        """Area of one entry [Å²]."""
        return float(abs(np.linalg.det(self.steps)))


def plane_rotation(angle: float) -> Float[np.ndarray, "2 2"]:
    """Matrix for rows (y, x) that rotates from x towards y by `angle` [rad]: `rows @ matrix`."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


def fit_grid(
    positions: Float[np.ndarray, "shot 2"],
) -> tuple[ScanGrid, Int[np.ndarray, "shot 2"]]:
    """Lattice of the positions [Å], and the entry (row, column) of every shot.

    Some entries may have no shot. Raises ValueError for positions off any lattice.
    """
    if len(positions) < 4:
        raise ValueError(f"{len(positions)} positions form no scan grid; at least 4 are required")
    steps = _steps(positions)
    middle = np.argmin(((positions - positions.mean(0)) ** 2).sum(1))
    origin = positions[middle]
    # the lattice is fitted to ever larger neighbourhoods, so that steps of a wrong length by 1 %
    # do not add up to a wrong entry
    distance = np.abs((positions - origin) @ np.linalg.inv(steps)).max(1)
    radius = 3.0
    while True:
        near = distance <= radius
        entries = np.rint((positions[near] - origin) @ np.linalg.inv(steps))
        design = np.c_[np.ones(len(entries)), entries]
        if np.linalg.matrix_rank(design) == 3:
            origin, *steps = np.linalg.lstsq(design, positions[near], rcond=None)[0]
            steps = np.array(steps)
        if near.all():
            break
        radius *= 2
    return _checked(positions, origin, steps)


def _steps(positions):
    """Shortest two displacements between neighbours that are not parallel, rows first."""
    near = KDTree(positions).query(positions, k=min(NEIGHBOURS, len(positions)))[1]
    moves = (positions[np.asarray(near)[:, 1:]] - positions[:, None]).reshape(-1, 2)
    moves = np.where((moves[:, :1] < 0) | ((moves[:, :1] == 0) & (moves[:, 1:] < 0)), -moves, moves)
    length = np.hypot(*moves.T)
    moves, length = moves[length > 0], length[length > 0]
    if not len(length):
        raise ValueError("all positions of the scan are equal; a scan grid is required")
    first = _cluster(moves, moves[length <= 1.2 * np.quantile(length, 0.05)])
    sine = np.abs(moves @ [first[1], -first[0]]) / np.hypot(*first) / length
    apart = sine > MIN_ANGLE
    if not apart.any():
        raise ValueError("the positions of the scan are on a line; a scan grid is required")
    second = _cluster(moves, moves[apart & (length <= 1.1 * np.quantile(length[apart], 0.05))])
    along_y = [abs(v[0]) / np.hypot(*v) for v in (first, second)]
    rows, columns = (first, second) if along_y[0] > along_y[1] else (second, first)
    return np.array([rows * np.copysign(1, rows[0]), columns * np.copysign(1, columns[1])])


def _cluster(moves, candidates):
    """Median of the moves that are nearly equal to the median candidate."""
    counts = KDTree(candidates).query_ball_point(
        candidates[:500], 0.2 * np.hypot(*candidates[0]), return_length=True
    )
    best = candidates[int(np.argmax(counts))]
    return np.median(moves[np.hypot(*(moves - best).T) < 0.2 * np.hypot(*best)], axis=0)


def _checked(positions, origin, steps):
    exact = (positions - origin) @ np.linalg.inv(steps)
    entries = np.rint(exact).astype(int)
    first = entries.min(0)
    entries -= first
    ny, nx = (int(n) + 1 for n in entries.max(0))
    offset = np.abs(exact - first - entries).max(1)
    if (worst := float(offset.max())) > MAX_OFFSET:
        raise ValueError(
            f"the positions are off a regular scan grid (shot {int(np.argmax(offset))} by "
            f"{worst:.2f} of a step of {np.hypot(*steps.T).round(3)} Å)"
        )
    if len(np.unique(entries, axis=0)) < len(entries):
        raise ValueError("several shots are at one entry of the scan grid; average or drop them")
    if min(ny, nx) < 2 or len(positions) < MIN_OCCUPANCY * ny * nx:
        raise ValueError(
            f"{len(positions)} positions fill a scan grid of {ny} × {nx} entries; at "
            f"least {MIN_OCCUPANCY:.0%} of them and two rows and columns are required"
        )
    return ScanGrid(origin + first @ steps, steps, (ny, nx)), entries


def square_grid(positions: Float[np.ndarray, "shot 2"]) -> ScanGrid:
    """Square grid over the area of any positions [Å], with as many entries as there are shots."""
    low, high = positions.min(0), positions.max(0)
    extent = high - low
    step = _area_step(extent, len(positions))
    ny, nx = (int(n) + 1 for n in np.ceil(extent / step))
    return ScanGrid(low, step * np.eye(2), (ny, nx))


def _area_step(extent, n):
    """Step [Å] with which a grid over `extent` has about `n` entries."""
    y, x = extent
    if not max(y, x) > 0:
        raise ValueError("all positions of the scan are equal; positions in a plane are required")
    # (y/s + 1)(x/s + 1) = n
    return float((y + x + np.sqrt((y + x) ** 2 + 4 * (n - 1) * y * x)) / (2 * (n - 1)))
