"""Figures of errors against a ground truth: positions, alignment, probes."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Complex, Float
from matplotlib.figure import Figure

from ..analysis.errors import AlignmentError, PositionError
from ..analysis.pictures import PixelPair
from .plots import scale_bar, show_wave, unit_of


def draw_positions_error(error: PositionError, true: Float[np.ndarray, "_ 2"]) -> Figure:
    """Remaining error of every position, and the histogram of the errors."""
    figure = Figure((11, 5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    distance = np.hypot(*error.residual.T)
    extent = np.ptp(true, axis=0).max()
    unit, size = unit_of(extent)
    if distance.max() > 1e-9 * extent:  # arrows of rounding errors would be misleading
        arrows = (*(true.T[::-1] / size), error.residual[:, 1], -error.residual[:, 0])
        drawn = left.quiver(*arrows, distance, cmap="viridis")
        figure.colorbar(drawn, ax=left, label="error (Å)")
    left.set(
        xlabel=f"x ({unit})", ylabel=f"y ({unit})", title="Error of the positions", aspect="equal"
    )
    left.invert_yaxis()
    right.hist(distance, bins="auto", color="0.6")
    rms = np.sqrt(np.mean(distance**2))
    right.axvline(rms, color="k", lw=1)
    right.set(xlabel="error (Å)", ylabel="positions", title=f"Root mean square {rms:.3g} Å")
    return figure


def draw_alignment(
    errors: Mapping[str, AlignmentError], tilts: Float[np.ndarray, " view"]
) -> Figure:
    """Shift and angle errors of every view over its tilt [rad], for several named alignments."""
    figure = Figure((8, 6.5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    degrees = np.rad2deg(tilts)
    for (name, error), marker in zip(errors.items(), "xo^svd", strict=False):
        for ax, values, unit in ((above, error.distances(), " Å"), (below, error.angles(), "°")):
            label = f"{name}: mean {values.mean():.2g}{unit}, maximum {values.max():.2g}{unit}"
            ax.plot(degrees, values, marker=marker, ms=5, lw=0.8, label=label)
    voxel = next(iter(errors.values())).voxel
    above.axhline(voxel, color="0.7", lw=1, ls="--", label=f"a voxel, {voxel:.3g} Å")
    above.set(ylabel="shift error (Å)", title="Alignment, view by view")
    below.set(ylabel="angle error (°)", xlabel="tilt (°)")
    for ax in (above, below):
        ax.set_ylim(0, 1.4 * ax.get_ylim()[1])  # room for the legend
        ax.legend(loc="upper center")
    return figure


def draw_probes(
    found: Complex[np.ndarray, "_ y x"], true: Complex[np.ndarray, "_ y x"], pixel: PixelPair
) -> Figure:
    """Modes of a probe above those of the true one: brightness is amplitude, colour is phase."""
    columns = max(len(found), len(true))
    figure = Figure((2.6 * max(2, columns), 5.4), layout="constrained")
    axes = figure.subplots(2, columns, squeeze=False)
    for row, (waves, what) in zip(axes, ((found, "found"), (true, "true")), strict=True):
        powers = np.sum(np.abs(waves) ** 2, axis=(1, 2))
        for ax, wave, power in zip(row, waves, powers, strict=False):
            show_wave(ax, wave, f"{100 * power / powers.sum():.1f} %")
            scale_bar(ax, wave.shape, pixel)
        for ax in row[len(waves) :]:
            ax.axis("off")
        row[0].set_ylabel(what)
    return figure
