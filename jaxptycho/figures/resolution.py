"""Figures of resolution: correlations with their thresholds, directions, power spectra."""

from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.figure import Figure

from ..analysis.resolution import THRESHOLDS, Control, FourierCorrelation, half_bit
from ..analysis.spectrum import InformationLimit, RadialSpectrum
from .plots import unit_of

STYLES = ("--", "-.", ":")


def draw_correlation(curve: FourierCorrelation, thresholds: Mapping = THRESHOLDS) -> Figure:
    """Fourier ring or shell correlation, its thresholds and the resolution at each."""
    figure = Figure((7, 4.5), layout="constrained")
    ax = figure.subplots()
    unit, size = unit_of(1 / curve.frequency[-1])
    frequency = curve.frequency * size
    ax.plot(frequency[1:], curve.correlation[1:], "k", label="correlation")  # the mean was removed
    for number, (style, (name, level)) in enumerate(zip(STYLES, thresholds.items(), strict=False)):
        resolution = curve.resolution(level)
        label = f"{name}: {resolution / size:.3g} {unit}"
        ax.plot(
            frequency[1:], level(curve.samples[1:]), style, color=f"C{number}", lw=1.2, label=label
        )
        if np.isfinite(resolution):
            ax.axvline(size / resolution, ls=style, color=f"C{number}", lw=0.8, alpha=0.6)
    _correlation_axes(ax, frequency, unit)
    ax.legend()
    return figure


def draw_directions(
    curves: Mapping[str, FourierCorrelation],
    threshold: Callable[[np.ndarray], np.ndarray] = half_bit,
) -> Figure:
    """Correlations in one figure, such as those of several cones, with the resolution of each."""
    figure = Figure((7, 4.5), layout="constrained")
    ax = figure.subplots()
    frequency = next(iter(curves.values())).frequency
    unit, size = unit_of(1 / frequency[-1])
    for number, (name, curve) in enumerate(curves.items()):
        label = f"{name}: {curve.resolution(threshold) / size:.3g} {unit}"
        ax.plot(frequency[1:] * size, curve.correlation[1:], color=f"C{number}", label=label)
        ax.plot(
            frequency[1:] * size,
            threshold(np.maximum(curve.samples[1:], 1)),
            ":",
            color=f"C{number}",
            lw=1,
        )
    _correlation_axes(ax, frequency * size, unit)
    ax.legend()
    return figure


def draw_control(control: Control) -> Figure:
    """Correlation under its window, with random phases, and corrected.

    The signal-to-noise ratio is shown beside it.
    """
    figure = Figure((12, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    unit, size = unit_of(1 / control.masked.frequency[-1])
    frequency = control.masked.frequency[1:] * size
    for name, curve, style in zip(
        ("as compared", "random phases", "corrected"), control, ("k--", "C1", "k"), strict=True
    ):
        left.plot(frequency, curve.correlation[1:], style, lw=1.2, label=name)
    _correlation_axes(left, frequency, unit)
    left.legend()
    ratio = control.corrected.ssnr[1:]
    right.semilogy(frequency, np.where(ratio > 0, ratio, np.nan), "k")
    right.axhline(1, ls=":", color="0.5", lw=1)
    right.set(
        xlabel=f"spatial frequency (1/{unit})",
        ylabel="signal-to-noise ratio of both",
        xlim=(0, frequency[-1]),
    )
    return figure


def draw_spectrum(spectrum: RadialSpectrum, limit: InformationLimit | None = None) -> Figure:
    """Mean power ring by ring, with the noise floor and the information limit."""
    figure = Figure((7, 4.5), layout="constrained")
    ax = figure.subplots()
    unit, size = unit_of(1 / spectrum.frequency[-1])
    frequency = spectrum.frequency[1:] * size
    ax.semilogy(frequency, spectrum.power[1:], "k", label="power")
    if limit is not None:
        ax.axhline(limit.floor, ls="--", color="C0", lw=1.2, label="noise floor")
        if np.isfinite(limit.resolution):
            label = f"information limit: {limit.resolution / size:.3g} {unit}"
            ax.axvline(size / limit.resolution, color="C1", lw=1, label=label)
    ax.set(xlabel=f"spatial frequency (1/{unit})", ylabel="mean power", xlim=(0, frequency[-1]))
    ax.legend()
    return figure


def _correlation_axes(ax, frequency, unit: str) -> None:
    ax.axhline(0, color="0.8", lw=0.8, zorder=0)
    ax.set(
        xlabel=f"spatial frequency (1/{unit})",
        ylabel="correlation",
        ylim=(-0.15, 1.05),
        xlim=(0, frequency[-1]),
    )
