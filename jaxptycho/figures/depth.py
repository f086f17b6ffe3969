"""Figures of depth: profiles along z, correlations of slices, and the coverage of a tilt series."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ..analysis.coverage import Coverage, TiltSeries, coverage, in_cones, in_thin_slabs, in_wedge
from .plots import unit_of

COLOURS = {"slabs": "tab:blue", "cones": "tab:orange", "wedge": "0.5", "filled": "tab:green"}
LABELS = {"slabs": "slabs (single slice)", "cones": "cones (multislice)", "wedge": "missing wedge"}
LABELS |= {"filled": "missing wedge, filled by cones"}
REGIONS = {"not measured": "white", "missing wedge": "0.85", "cones": "#fdbf6f", "slabs": "#1f78b4"}
REGIONS |= {"cones in the missing wedge": "#74c476"}


def draw_depth_profiles(
    profiles: Float[np.ndarray, "n z"],
    spacing: float,
    fitted: Any = None,
    labels: Sequence[str] | None = None,
) -> Figure:
    """Profiles of columns along z, slices `spacing` [Å] apart.

    `fitted` are their `DepthPeaks` or `DepthEdges`.
    """
    figure = Figure((7, 4.5), layout="constrained")
    ax = figure.subplots()
    unit, size = unit_of(spacing * profiles.shape[1] / 3)
    z = spacing * np.arange(profiles.shape[1]) / size
    for n, profile in enumerate(profiles):
        label = f"column {n}" if labels is None else labels[n]
        if fitted is not None:
            width, name = (
                (fitted.fwhm, "FWHM") if hasattr(fitted, "fwhm") else (fitted.width, "10–90 %")
            )
            label += f": {name} {width[n] / size:.3g} {unit}"
        drawn = ax.plot(z, profile, ".-", lw=1, label=label)[0]
        if fitted is not None:
            ax.axvline(fitted.position[n] / size, color=drawn.get_color(), lw=0.8, ls=":")
    ax.set(
        xlabel=f"depth below the first slice ({unit})",
        ylabel="mean around the column",
        title="Depth profiles",
    )
    if len(profiles) <= 12:
        ax.legend()
    return figure


def draw_slice_correlation(
    matrix: Float[np.ndarray, "z Z"], spacing: float, true_spacing: float
) -> Figure:
    """Correlation of every slice with every true one, both at their depth."""
    figure = Figure((6, 5), layout="constrained")
    ax = figure.subplots()
    unit, size = unit_of(spacing * len(matrix) / 3)
    (down, right) = (
        n * s / size for n, s in zip(matrix.shape, (spacing, true_spacing), strict=True)
    )
    drawn = ax.imshow(
        matrix, cmap="RdBu_r", vmin=-1, vmax=1, extent=(0, right, down, 0), interpolation="nearest"
    )
    ax.plot([0, min(down, right)], [0, min(down, right)], color="k", lw=0.6, ls=":")
    ax.set(
        xlabel=f"depth in the truth ({unit})",
        ylabel=f"depth in the result ({unit})",
        title="Correlation of slices",
    )
    figure.colorbar(drawn, ax=ax, label="correlation", shrink=0.8)
    return figure


def draw_coverage(series: TiltSeries, resolution: float, pixels: int = 801) -> Figure:
    """Coverage of a tilt series to `resolution` [Å].

    The section k_y = 0, and the measured fraction of every shell.
    """
    parts = coverage(series, resolution)
    figure = Figure((12, 5.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_section(left, series, 1 / resolution, pixels)
    _draw_shells(right, parts)
    return figure


def _draw_section(ax, series: TiltSeries, limit: float, pixels: int):
    k = np.linspace(-limit, limit, pixels)
    kz = k[:, None]
    kx = k[None, :]
    slabs = in_thin_slabs(kz, 0.0, kx, series)
    cones = in_cones(kz, 0.0, kx, series)
    wedge = in_wedge(kz, 0.0, kx, series.tilts)
    names = list(REGIONS)
    region = np.select(
        [slabs, cones & wedge, cones, wedge],
        [names.index(n) for n in (names[3], names[4], names[2], names[1])],
        0,
    )
    shown = np.ma.masked_where(np.hypot(kz, kx) > limit, region)
    colours = ListedColormap(list(REGIONS.values()))
    ax.imshow(
        shown,
        cmap=colours,
        vmin=-0.5,
        vmax=4.5,
        extent=(-limit, limit, -limit, limit),
        origin="lower",
        interpolation="nearest",
    )
    ax.set(xlabel="k$_x$ (1/Å)", ylabel="k$_z$ (1/Å)", title="Section k$_y$ = 0")
    patches = [
        Patch(fc=c, ec="0.4", label=n)
        for n, c in REGIONS.items()
        if (shown == names.index(n)).any()
    ]
    ax.legend(
        handles=patches,
        loc="upper left",
        bbox_to_anchor=(0, -0.12),
        ncols=3,
        fontsize="small",
        frameon=False,
    )


def _draw_shells(ax, parts: Coverage):
    ball = parts.of_ball
    for name, colour in COLOURS.items():
        ax.plot(
            parts.frequency,
            100 * getattr(parts, name),
            color=colour,
            label=f"{LABELS[name]}: {100 * ball[name]:.3g} %",
        )
    ax.set(
        xlabel="spatial frequency (1/Å)",
        ylabel="part of the shell (%)",
        ylim=(0, 100),
        xlim=(0, None),
    )
    ax.set_title("Parts of every shell; of the full ball in the legend")
    ax.legend()
