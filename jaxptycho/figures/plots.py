"""Figures of models and patterns, in physical units, cropped to the scanned area."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import matplotlib
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from ..analysis.pictures import Modes, Picture, PixelPair, limits
from ..data import Dataset
from ..model import Model, predict

DPI = 150
SMALL = 150  # pixels of an image that is interpolated when it is drawn
LENGTHS = {"Å": 1.0, "nm": 10.0, "µm": 1e4, "mm": 1e7}


def save(figure: Figure, path: Path) -> None:
    """Write the figure to `path`."""
    figure.savefig(path, dpi=DPI)


def draw_object(shown: Picture) -> Figure:
    """Phase of all slices together and, if the specimen absorbs, the amplitude beside it."""
    title = f"Phase, sum of {len(shown.phase)} slices" if len(shown.phase) > 1 else "Phase"
    if shown.amplitude is None:
        return draw_image(shown.phase.sum(0), shown.pixel, title, "rad")
    figure = Figure((11, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    show(left, shown.phase.sum(0), shown.pixel, title, "rad")
    show(right, shown.amplitude, shown.pixel, "Amplitude", "")
    return figure


def draw_image(image: np.ndarray, pixel: PixelPair, title: str, unit: str) -> Figure:
    """Image with its scale."""
    figure = Figure((7, 6), layout="constrained")
    show(figure.subplots(), image, pixel, title, unit)
    return figure


def draw_pair(
    first: np.ndarray,
    second: np.ndarray,
    pixel: PixelPair,
    titles: tuple[str, str] = ("Truth", "Result"),
    unit: str = "phase (rad)",
) -> Figure:
    """Two images of the same area in the same grey values."""
    between = limits(first)
    figure = Figure((9, 4.5), layout="constrained")
    axes = figure.subplots(1, 2)
    for ax, image, title in zip(axes, (first, second), titles, strict=True):
        drawn = show(ax, image, pixel, title, None, between)
    figure.colorbar(drawn, ax=list(axes), label=unit, shrink=0.8)
    return figure


def draw_slices(shown: Picture) -> Figure:
    """Phase of every slice on one grey scale, entrance face first."""
    columns = min(4, len(shown.phase))
    rows = math.ceil(len(shown.phase) / columns)
    figure = Figure((3.2 * columns + 0.8, 3.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    common = limits(shown.phase)
    unit, size = unit_of(shown.faces[-1])
    depths = pairwise(shown.faces / size)
    for ax, phase, (top, bottom) in zip(axes, shown.phase, depths, strict=False):
        drawn = show(ax, phase, shown.pixel, f"Depth {top:.3g}–{bottom:.3g} {unit}", None, common)
    for ax in axes[len(shown.phase) :]:
        ax.axis("off")
    figure.colorbar(drawn, ax=axes, label="phase (rad)", shrink=0.8)
    return figure


def draw_probe(modes: Modes, model: Model) -> Figure:
    """Modes in real and reciprocal space: brightness is amplitude, colour is phase."""
    count = min(6, len(modes.powers))
    grid = model.grid
    figure = Figure((2.6 * max(2, count), 5.4), layout="constrained")
    axes = figure.subplots(2, count, squeeze=False)
    for column in range(count):
        show_wave(
            axes[0, column],
            modes.waves[column],
            f"Mode {column + 1}: {100 * modes.powers[column]:.1f} %",
        )
        show_wave(axes[1, column], modes.spectra[column], "")
        scale_bar(axes[0, column], grid.shape, grid.pixel)
        angles = tuple(1e3 * grid.wavelength * dk for dk in grid.dk)
        scale_bar(
            axes[1, column],
            grid.shape,
            angles,
            {"mrad": 1.0, "rad": 1e3} if max(angles) < 50 else {"rad": 1e3},
        )
    axes[0, 0].set_ylabel("real space")
    axes[1, 0].set_ylabel("reciprocal space")
    return figure


def draw_positions(before: np.ndarray, after: np.ndarray, pixel: PixelPair) -> Figure:
    """Positions [Å] before and after a reconstruction, and their displacements."""
    figure = Figure((11, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    unit, size = unit_of(np.ptp(after, axis=0).max())
    moved = after - before
    for places, label, marker in ((before, "before", "x"), (after, "after", ".")):
        left.plot(places[:, 1] / size, places[:, 0] / size, marker, ms=3, mew=0.7, label=label)
    left.set(xlabel=f"x ({unit})", ylabel=f"y ({unit})", title="Positions", aspect="equal")
    left.invert_yaxis()
    left.legend(loc="upper right")
    distance = np.hypot(*(moved / pixel).T)
    if distance.any():  # arrows of length zero have no scale
        drawn = right.quiver(
            *(after.T[::-1] / size), moved[:, 1], -moved[:, 0], distance, cmap="viridis"
        )
        figure.colorbar(drawn, ax=right, label="moved by (pixels)")
    rms = np.sqrt(np.mean(distance**2))
    right.set(
        xlabel=f"x ({unit})", title=f"Moved by {rms:.3g} pixels (root mean square)", aspect="equal"
    )
    right.invert_yaxis()
    return figure


def draw_losses(history: Sequence) -> Figure:
    """Loss and held-out loss over the epochs, separated by steps."""
    figure = Figure((7, 4.5), layout="constrained")
    show_losses(figure.subplots(), history)
    return figure


def show_losses(ax: Axes, history: Sequence) -> None:
    """Loss and held-out loss over the epochs, separated by steps."""
    epochs = [row.epoch for row in history]
    ax.plot(epochs, [row.loss for row in history], label="loss")
    held = [np.nan if row.held_out is None else row.held_out for row in history]
    if not np.isnan(held).all():
        ax.plot(epochs, held, label="held-out loss")
    for before, row in pairwise(history):
        if row.step != before.step:
            ax.axvline(row.epoch - 0.5, color="0.7", lw=1)
    ax.set(
        xlabel="epoch",
        ylabel="loss (quanta per pattern)",
        title=" → ".join(dict.fromkeys(r.step for r in history)),
    )
    if min(row.loss for row in history) > 0:
        ax.set_yscale("log")
    ax.legend()


class SampledPatterns(NamedTuple):
    """Measured and predicted patterns of some shots, zero frequency in the middle."""

    shots: Int[np.ndarray, " shot"]
    measured: Float[np.ndarray, "shot y x"]
    predicted: Float[np.ndarray, "shot y x"]


def sample_patterns(model: Model, data: Dataset, count: int = 16) -> SampledPatterns:
    """Patterns of `count` shots of the first view, spread over the scan, and their predictions."""
    shots = np.unique(np.linspace(0, data.n_shots[0] - 1, count).astype(np.int32))
    pair = data.patterns(0, shots), eqx.filter_jit(predict)(model, shots)
    measured, predicted = (np.fft.fftshift(np.asarray(a, float), axes=(1, 2)) for a in pair)
    return SampledPatterns(shots, measured, predicted)


def draw_patterns(patterns: SampledPatterns, count: int = 4) -> Figure:
    """Measured beside predicted patterns, each pair on one square-root scale."""
    drawn = np.unique(np.linspace(0, len(patterns.shots) - 1, count).astype(int))
    figure = Figure((2.8 * len(drawn), 5.8), layout="constrained")
    axes = figure.subplots(2, len(drawn), squeeze=False)
    for column, number in enumerate(drawn):
        top = np.sqrt(max(np.percentile(patterns.measured[number], 99.9), 1.0))
        for row, what in enumerate(("measured", "predicted")):
            ax = axes[row, column]
            values = getattr(patterns, what)[number]
            ax.imshow(
                np.sqrt(np.maximum(values, 0)),
                cmap="gray",
                vmin=0,
                vmax=top,
                interpolation="nearest",
            )
            ax.set(title=f"Shot {patterns.shots[number]}, {what}", xticks=[], yticks=[])
    return figure


def show(
    ax: Axes,
    image: np.ndarray,
    pixel: PixelPair,
    title: str,
    unit: str | None,
    between: tuple[float, float] | None = None,
) -> AxesImage:
    """Show an image in grey with a scale bar, and a colour bar unless `unit` is None."""
    low, high = limits(image) if between is None else between
    drawn = ax.imshow(
        image,
        cmap="gray",
        vmin=low,
        vmax=high,
        aspect=pixel[0] / pixel[1],
        interpolation="bicubic" if max(image.shape) < SMALL else None,
    )
    ax.set(title=title, xticks=[], yticks=[])
    scale_bar(ax, image.shape, pixel)
    if unit is not None:
        ax.figure.colorbar(drawn, ax=ax, label=unit, shrink=0.8)
    return drawn


def show_wave(ax: Axes, wave: np.ndarray, title: str) -> None:
    """Show a complex image: amplitude as brightness, phase as hue (`twilight`)."""
    amplitude = np.abs(wave) / max(np.percentile(np.abs(wave), 99.9), 1e-30)
    colours = matplotlib.colormaps["twilight"]((np.angle(wave) / (2 * np.pi)) % 1)[..., :3]
    colours = colours / colours.max(-1, keepdims=True)  # some phases of the map are dark
    ax.imshow(np.clip(amplitude, 0, 1)[..., None] * colours)
    ax.set(title=title, xticks=[], yticks=[])


def scale_bar(
    ax: Axes,
    shape: Sequence[int],
    pixel: PixelPair,
    units: Mapping[str, float] | None = None,
) -> None:
    """Draw a bar of a round length, about a fifth of the image's width."""
    length = round_length(shape[1] * pixel[1] / 5)
    unit, size = unit_of(length, units)
    width, height = length / pixel[1], max(1.0, shape[0] / 80)
    x, y = 0.05 * shape[1], 0.95 * shape[0] - height
    ax.add_patch(Rectangle((x, y), width, height, fc="white", ec="black", lw=0.5))
    text = ax.text(
        x,  # not above its middle: a long label of a short bar would leave the image
        y - 0.015 * shape[0],
        f"{length / size:g} {unit}",
        color="white",
        ha="left",
        va="bottom",
    )
    text.set_bbox({"facecolor": "black", "alpha": 0.5, "pad": 1.5, "lw": 0})


def round_length(length: float) -> float:
    """1, 2 or 5 times a power of ten, at most `length`."""
    power = 10.0 ** math.floor(math.log10(length))
    return power * max(step for step in (1, 2, 5) if step * power <= length * (1 + 1e-9))


def unit_of(length: float, units: Mapping[str, float] | None = None) -> tuple[str, float]:
    """Appropriate unit of a length [Å], and its size [Å]."""
    fitting = [(u, s) for u, s in (units or LENGTHS).items() if length >= 0.999 * s]
    return fitting[-1] if fitting else next(iter((units or LENGTHS).items()))
