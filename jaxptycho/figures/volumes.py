"""Figures of volumes: sections, sums, surfaces and power spectra.

In Å from the middle voxel, which is on the tilt axis.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from jaxtyping import Float
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy import fft
from scipy.ndimage import gaussian_filter, map_coordinates

from ..analysis.coverage import in_wedge
from ..analysis.pictures import limits
from ..analysis.resolution import directional_correlations, fixed
from ..analysis.shells import Pixel, tapered
from ..analysis.volumes import rotation_matrices
from ..physics.types import Numbers
from .plots import scale_bar, unit_of

AXES = "zyx"
PLANES = ((0, 1, 2), (1, 0, 2), (2, 0, 1))  # across, vertical and horizontal axis
VIEW = np.deg2rad((35.0, 25.0, 0.0))  # of surfaces: about y, x and z
LIGHT = np.array([-0.75, -0.5, -0.43])  # direction of its source (z, y, x); the eye is at −z
OPACITY = 0.4  # of a surface around another one
WEDGE = "tab:red"
COLOURS = ("lightsteelblue", "gold", "indianred", "seagreen")  # of surfaces, from the outside
SECTOR = np.deg2rad(20.0)  # half angle of the cones of `draw_directional`
DIRECTIONS = 24


class VolumeAxes(NamedTuple):
    """Labels of a figure's axes: the unit, and the faces of the volume in it (z, y, x)."""

    unit: str
    size: float  # of the unit [Å]
    low: np.ndarray
    high: np.ndarray

    def extent(self, down: int, right: int) -> tuple[float, float, float, float]:
        """Extent of an image, row 0 on top."""
        return self.low[right], self.high[right], self.high[down], self.low[down]


def volume_axes(shape: Sequence[int], voxel: Numbers) -> VolumeAxes:
    """Faces of a volume whose middle voxel [n//2, …] is at 0."""
    count = np.array(shape)
    step = np.broadcast_to(np.asarray(voxel, float), 3)
    unit, size = unit_of(float((count * step).max()) / 10)
    low = -(count // 2 + 0.5) * step / size
    return VolumeAxes(unit, size, low, low + count * step / size)


def draw_sections(
    volume: Float[np.ndarray, "z y x"],
    voxel: Numbers,
    place: Numbers = (0.0, 0.0, 0.0),
    atoms: Atoms | None = None,
    within: float = 1.0,
    what: str = "potential",
) -> Figure:
    """Three sections through `place` (z, y, x) [Å], with atoms within `within` [Å] as circles."""
    step = np.broadcast_to(np.asarray(voxel, float), 3)
    place = np.asarray(place, float)
    middle = np.clip(
        np.round(place / step).astype(int) + np.array(volume.shape) // 2,
        0,
        np.array(volume.shape) - 1,
    )
    images = [volume.take(middle[across], across) for across, _, _ in PLANES]
    titles = [f"Section at {AXES[across]} = {place[across]:.3g} Å" for across, _, _ in PLANES]
    figure, axes, shown = _three(
        images, volume.shape, voxel, titles, f"{what} (V)", limits(np.array(volume))
    )
    if atoms is None:
        return figure
    figure.set_figheight(4.8)  # for the legend
    places = atoms.positions[:, ::-1]
    symbols = np.array(atoms.get_chemical_symbols())
    for number, symbol in enumerate(np.unique(symbols)):
        for ax, (across, down, right) in zip(axes, PLANES, strict=True):
            own = (
                places[(np.abs(places[:, across] - place[across]) < within) & (symbols == symbol)]
                / shown.size
            )
            ax.scatter(
                own[:, right], own[:, down], s=24, fc="none", ec=f"C{number}", lw=1.2, label=symbol
            )
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(symbols)
    )
    return figure


def draw_sums(volume: Float[np.ndarray, "z y x"], voxel: Numbers) -> Figure:
    """Potential projected along all three axes."""
    steps = np.broadcast_to(np.asarray(voxel, float), 3)
    images = [volume.sum(across) * steps[across] for across, _, _ in PLANES]
    titles = [f"Sum along {AXES[across]}" for across, _, _ in PLANES]
    return _three(images, volume.shape, voxel, titles, "projected potential (V·Å)")[0]


def draw_maxima(volume: Float[np.ndarray, "z y x"], voxel: Numbers) -> Figure:
    """Greatest potential along all three axes: single atoms, whereas a sum shows their number."""
    images = [volume.max(across) for across, _, _ in PLANES]
    titles = [f"Maximum along {AXES[across]}" for across, _, _ in PLANES]
    return _three(images, volume.shape, voxel, titles, "potential (V)")[0]


def draw_surfaces(
    volume: Float[np.ndarray, "z y x"],
    voxel: Numbers,
    parts: Sequence[float] = (0.12, 0.45),
    pixels: int = 320,
) -> Figure:
    """Surfaces at `parts` of the greatest potential in an oblique view, outer ones transparent.

    They are shaded by slope and depth. The potential is blurred by 0.7 voxels, which hides its
    steps.
    """
    step = np.broadcast_to(np.asarray(voxel, float), 3)
    smooth = gaussian_filter(np.asarray(volume, np.float32), 0.7)
    ordered = [part * float(smooth.max()) for part in sorted(parts, reverse=True)]
    inside = (np.argwhere(smooth > ordered[-1]) - np.array(volume.shape) // 2) * step
    radius = float(np.linalg.norm(inside, axis=1).max(initial=0)) + 2 * step.max()
    across = (np.arange(pixels) + 0.5) / pixels * 2 * radius - radius
    sample = _seen(smooth, step, rotation_matrices(VIEW))
    picture = np.ones((pixels, pixels, 3))
    for number, depth in enumerate(
        _first_hits(sample, np.arange(-radius, radius, step.min()), across, ordered)
    ):
        light = _brightness(sample, np.nan_to_num(depth), across, step.min())
        near = 1 - 0.4 * (np.nan_to_num(depth) + radius) / (2 * radius)
        colour = to_rgb(COLOURS[(len(ordered) - 1 - number) % len(COLOURS)])
        opaque = np.where(np.isnan(depth), 0, 1 if number == 0 else OPACITY)[..., None]
        picture += opaque * ((light * near)[..., None] * colour - picture)
    figure = Figure((6.4, 6.4), layout="constrained")
    ax = figure.subplots()
    ax.imshow(picture, interpolation="bilinear")
    ax.set(
        xticks=[],
        yticks=[],
        title="Potential above " + " and ".join(f"{level:.3g} V" for level in ordered[::-1]),
    )
    scale_bar(ax, picture.shape, (2 * radius / pixels,) * 2)
    _tripod(ax, rotation_matrices(VIEW), pixels)
    return figure


def draw_power(
    volume: Float[np.ndarray, "z y x"], voxel: Numbers, tilts: Numbers | None = None
) -> Figure:
    """Power spectrum in the three central planes.

    The region that no view between the outermost `tilts` [rad] measured is tinted.
    """
    step = np.broadcast_to(np.asarray(voxel, float), 3)
    spectrum = np.asarray(fft.fftshift(fft.fftn(tapered(volume))))
    k = [fft.fftshift(fft.fftfreq(n, s)) for n, s in zip(volume.shape, step, strict=True)]
    kz, ky, kx = np.meshgrid(*k, indexing="ij", sparse=True)
    missing = None if tilts is None else in_wedge(kz, ky, kx, np.asarray(tilts))
    powers = [np.abs(_central(spectrum, across)) ** 2 for across, _, _ in PLANES]
    logs = [np.log10(np.maximum(power, 1e-12 * powers[0].max())) for power in powers]
    low, high = np.percentile(logs[0], (2, 99.9))
    figure = Figure((13, 4.6), layout="constrained")
    axes = figure.subplots(1, 3)
    for ax, (across, down, right), image in zip(axes, PLANES, logs, strict=True):
        extent = (*_ends(k[right]), *_ends(k[down])[::-1])
        drawn = ax.imshow(
            image, cmap="gray", vmin=low, vmax=high, extent=extent, interpolation="nearest"
        )
        if missing is not None:
            ax.imshow(_tint(_central(missing, across)), extent=extent, interpolation="nearest")
        ax.set(
            xlabel=f"k$_{AXES[right]}$ (1/Å)",
            ylabel=f"k$_{AXES[down]}$ (1/Å)",
            title=f"k$_{AXES[across]}$ = 0",
        )
    figure.colorbar(drawn, ax=list(axes), label="log$_{10}$ power", shrink=0.85)
    if tilts is not None:
        figure.legend(handles=[Patch(fc=WEDGE, label="missing wedge")], loc="outside lower center")
    return figure


def draw_directional(
    first: Float[np.ndarray, "z y x"],
    second: Float[np.ndarray, "z y x"],
    voxel: Pixel,
    tilts: Numbers | None = None,
    level: float = 0.5,
    window: np.ndarray | None = None,
) -> Figure:
    """Frequency to which two volumes agree by `level`, in every direction across the tilt axis.

    With the missing wedge of `tilts` [rad].
    """
    angles = np.linspace(0, np.pi, DIRECTIONS, endpoint=False)
    axes = [(np.sin(angle), 0.0, np.cos(angle)) for angle in angles]
    curves = directional_correlations(first, second, voxel, axes, SECTOR, window=window)
    limit = np.array([1 / curve.resolution(fixed(level)) for curve in curves])
    figure = Figure((6, 6), layout="constrained")
    ax: Any = figure.add_subplot(projection="polar")
    around = np.concatenate([angles, angles + np.pi, [2 * np.pi]])
    radius = np.concatenate([limit, limit, limit[:1]])
    ax.plot(around, radius, "k.-")
    top = curves[0].frequency[-1]
    if tilts is not None and np.ptp(tilts) < np.pi:
        gap = np.pi - np.ptp(tilts)
        for turn in (0, np.pi):
            ax.bar(np.max(tilts) + gap / 2 + turn, top, gap, color=WEDGE, alpha=0.3, lw=0, zorder=0)
    ax.set(ylim=(0, top), title="Agreement to (1/Å), in the plane k$_y$ = 0")
    ax.set_thetagrids([0, 90, 180, 270], ["k$_x$", "k$_z$", "−k$_x$", "−k$_z$"])
    ax.set_rlabel_position(22)
    return figure


def _three(images, shape, voxel, titles, label: str, between=None):
    """Figure of three images across z, y and x, its axes, and their scale."""
    shown = volume_axes(shape, voxel)
    figure = Figure((13, 4.2), layout="constrained")
    axes = figure.subplots(1, 3)
    for ax, (_, down, right), image, title in zip(axes, PLANES, images, titles, strict=True):
        low, high = limits(image) if between is None else between
        drawn = ax.imshow(image, cmap="gray", extent=shown.extent(down, right), vmin=low, vmax=high)
        ax.set(
            xlabel=f"{AXES[right]} ({shown.unit})",
            ylabel=f"{AXES[down]} ({shown.unit})",
            title=title,
        )
        if between is None:
            figure.colorbar(drawn, ax=ax, label=label, shrink=0.85)
    if between is not None:
        figure.colorbar(drawn, ax=list(axes), label=label, shrink=0.85)
    return figure, axes, shown


def _seen(volume, step, turn):
    """Function of places (z, y, x) [Å] in the frame of the eye that returns the volume there."""
    middle = np.array(volume.shape) // 2

    def sample(z: Numbers, y: Numbers, x: Numbers) -> np.ndarray:
        places = np.stack(np.broadcast_arrays(z, y, x)).astype(np.float32)
        index = np.tensordot(turn.T / step[:, None], places, 1) + middle[:, None, None]
        return map_coordinates(volume, index, order=1, output=np.float32)

    return sample


def _first_hits(sample, depths, across, levels) -> np.ndarray:
    """Depth [Å] at which every ray first meets each level, NaN without a hit."""
    y, x = across[:, None], across
    hits = np.full((len(levels), len(across), len(across)), np.nan)
    before = sample(depths[0], y, x)
    gap = depths[1] - depths[0]
    for depth in depths[1:]:
        values = sample(depth, y, x)
        for hit, level in zip(hits, levels, strict=True):
            new = np.isnan(hit) & (values > level)
            rise = np.maximum(values - before, 1e-9)
            hit[new] = depth - gap * np.clip((values - level) / rise, 0, 1)[new]
        before = values
    return hits


def _brightness(sample, depth, across, step: float) -> np.ndarray:
    """Brightness of a matt surface, 0.35 in the shadow."""
    y, x = across[:, None], across
    h = step
    sides = ((h, 0, 0), (0, h, 0), (0, 0, h))
    slope = np.stack(
        [sample(depth + a, y + b, x + c) - sample(depth - a, y - b, x - c) for a, b, c in sides],
        axis=-1,
    )
    length = np.maximum(np.linalg.norm(slope, axis=-1), 1e-9)
    return 0.35 + 0.65 * np.clip(-slope @ LIGHT / length, 0, 1)  # potentials rise inwards


def _tripod(ax, turn, pixels: int) -> None:
    """Draw the axes of the specimen as arrows in the lower right corner."""
    foot = 0.88 * pixels
    length = 0.08 * pixels
    for axis, name in enumerate(AXES):
        _, dy, dx = length * turn[:, axis]
        ax.annotate(
            "", (foot + dx, foot + dy), (foot, foot), arrowprops={"arrowstyle": "->", "lw": 1}
        )
        ax.text(foot + 1.35 * dx, foot + 1.35 * dy, name, ha="center", va="center")


def _central(values, across: int) -> np.ndarray:
    """Plane through the middle voxel."""
    return values[
        tuple(n // 2 if axis == across else slice(None) for axis, n in enumerate(values.shape))
    ]


def _tint(where) -> np.ndarray:
    """Red, transparent overlay of the pixels `where`."""
    return np.where(where[..., None], (*to_rgb(WEDGE), 0.3), 0.0)


def _ends(k) -> tuple[float, float]:
    step = k[1] - k[0]
    return k[0] - step / 2, k[-1] + step / 2
