"""Figures of the uncertainty of a model."""

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from ..analysis.pictures import PixelPair
from ..physics.types import Numbers
from .plots import scale_bar


def draw_deviation(deviation: Numbers, pixel: PixelPair, title: str, unit: str) -> Figure:
    """Map of standard deviations on a logarithmic scale, blank where they are unknown."""
    values = np.asarray(deviation, float)
    known = values[np.isfinite(values) & (values > 0)]
    if known.size == 0:
        raise ValueError(
            "no pixel has a finite deviation; give a prior, or choose parameters that the "
            "patterns show"
        )
    low, high = np.percentile(known, (0.5, 99.5))
    figure = Figure((7, 6), layout="constrained")
    ax = figure.subplots()
    shown = np.ma.masked_invalid(np.maximum(values, known.min()))
    drawn = ax.imshow(
        shown, cmap="viridis", norm=LogNorm(low, max(high, 1.01 * low)), aspect=pixel[0] / pixel[1]
    )
    ax.set(title=title, xticks=[], yticks=[])
    scale_bar(ax, values.shape, pixel)
    figure.colorbar(drawn, ax=ax, label=f"standard deviation ({unit})", shrink=0.8)
    return figure


def draw_spread(bound: Numbers, spread: Numbers, unit: str) -> Figure:
    """Spread of repeated reconstructions over the bound of every parameter, ±20 % shaded."""
    bound = np.ravel(np.asarray(bound, float))
    spread = np.ravel(np.asarray(spread, float))
    known = np.isfinite(bound)
    bound = bound[known]
    spread = spread[known]
    ratio = np.sqrt(np.mean((spread / bound) ** 2))
    ends = np.array([min(bound.min(), spread.min()) / 1.1, max(bound.max(), spread.max()) * 1.1])
    figure = Figure((6, 5.5), layout="constrained")
    ax = figure.subplots()
    ax.fill_between(ends, 0.8 * ends, 1.2 * ends, color="0.9", label="± 20 %")
    ax.plot(ends, ends, color="0.5", lw=1, label="spread = bound")
    ax.plot(bound, spread, ".", ms=4)
    ax.set(
        xlabel=f"Cramér–Rao bound ({unit})",
        ylabel=f"spread of reconstructions ({unit})",
        title=f"Spread is {ratio:.3f} of the bound (root mean square)",
        xlim=ends,
        ylim=ends,
        xscale="log",
        yscale="log",
    )
    ax.legend(loc="upper left")
    return figure
