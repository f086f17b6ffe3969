"""Summary sheet of a run: object and its spectrum, probe, patterns, losses, and facts."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Ellipse

from ..analysis.design import area_per_shot
from ..analysis.pictures import Modes, Picture
from ..analysis.shells import taper
from ..analysis.spectrum import information_limit, radial_spectrum
from ..data import Dataset
from ..model import Model
from .plots import SampledPatterns, scale_bar, show, show_losses, show_wave, unit_of

SIGMAS = 5.0  # of counting noise at the ends of the colours of residuals
DECADES = 6.0  # of power below the brightest that a spectrum shows
FREQUENCIES = {"1/µm": 1e-4, "1/nm": 0.1, "1/Å": 1.0}


def draw_summary(
    model: Model,
    data: Dataset,
    history: Sequence,
    shown: Picture,
    modes: Modes,
    patterns: SampledPatterns,
) -> Figure:
    """Sheet of a run of a specimen that does not rotate, from what its other figures show."""
    figure = Figure((17, 7.4), layout="constrained")
    grid = figure.add_gridspec(2, 5)
    parts = [figure.add_subplot(grid[row, column]) for row in (0, 1) for column in (2, 3, 4)]
    power, probe, pupil, measured, residual, course = parts
    image = shown.phase.sum(0)
    show(figure.add_subplot(grid[:, :2]), image, shown.pixel, "Phase of the specimen", "rad")
    show_power(power, image, shown.pixel)
    share = f"{100 * modes.powers[0]:.3g} % in mode 1" if len(modes.powers) > 1 else "one mode"
    show_wave(probe, modes.waves[0], f"Probe, {share}")
    scale_bar(probe, modes.waves[0].shape, model.grid.pixel)
    show_wave(pupil, modes.spectra[0], "Probe in reciprocal space")
    show_aperture(pupil, data)
    measured.imshow(np.sqrt(np.maximum(patterns.measured.mean(0), 0)), cmap="viridis")
    measured.set(title=f"Mean of {len(patterns.shots)} patterns (√counts)", xticks=[], yticks=[])
    show_residual(residual, patterns)
    if history:
        show_losses(course, history)
        course.set(title="Loss (quanta per pattern)", ylabel="")
    else:
        course.axis("off")
    facts = [f"{name}: {value}" for name, value in facts_of(model, data).items()]
    figure.supxlabel("  ·  ".join(facts), fontsize="medium")
    return figure


def show_aperture(ax: Axes, data: Dataset) -> None:
    """Circle of the known semiangle in a picture of reciprocal space."""
    if (semiangle := data.about.get("semiangle_mrad")) is None:
        return
    y, x = (n // 2 for n in data.grid.shape)
    radii = [1e-3 * semiangle / (data.grid.wavelength * dk) for dk in data.grid.dk]
    ax.add_patch(Ellipse((x, y), 2 * radii[1], 2 * radii[0], fill=False, color="w", lw=1, ls="--"))


def show_power(ax: Axes, image: Float[np.ndarray, "Y X"], pixel: tuple[float, float]) -> None:
    """Power spectrum of an image on a logarithmic scale, with a ring at its information limit."""
    seen = np.isfinite(image)
    level = np.where(seen, image - np.mean(image[seen]), 0.0)
    window = taper(image.shape)
    power = np.abs(np.fft.fftshift(np.fft.fft2(window * level))) ** 2
    top = np.log10(max(float(power.max()), 1e-300))
    steps = [1 / (n * p) for n, p in zip(image.shape, pixel, strict=True)]
    ax.imshow(
        np.log10(np.maximum(power, 1e-300)),
        cmap="gray",
        vmin=top - DECADES,
        vmax=top,
        aspect=steps[0] / steps[1],
    )
    limit = information_limit(radial_spectrum(level, pixel, window)).resolution
    title = "Power spectrum"
    if np.isfinite(limit) and limit > 2 * max(pixel):
        y, x = (n // 2 for n in image.shape)
        radius = 1 / (limit * steps[1])
        ax.add_patch(Circle((x, y), radius, fill=False, color="tab:orange", lw=1, ls="--"))
        unit, size = unit_of(limit)
        title = f"Power spectrum, ring at {limit / size:.3g} {unit}"
    ax.set(title=title, xticks=[], yticks=[])
    scale_bar(ax, image.shape, steps, FREQUENCIES)


def show_residual(ax: Axes, patterns: SampledPatterns) -> None:
    """Measured less predicted counts, all patterns together, in units of their counting noise."""
    total = patterns.predicted.sum(0)
    residual = (patterns.measured.sum(0) - total) / np.sqrt(np.maximum(total, 1.0))
    drawn = ax.imshow(residual, cmap="RdBu_r", vmin=-SIGMAS, vmax=SIGMAS)
    ax.set(title=f"Residual of {len(patterns.shots)} patterns", xticks=[], yticks=[])
    ax.figure.colorbar(drawn, ax=ax, label="σ of counting noise", shrink=0.8)


def facts_of(model: Model, data: Dataset) -> dict[str, str]:
    """What a result was made from: patterns, beam, pixel, field, dose, slices."""
    grid = data.grid
    field = np.ptp(np.concatenate(data.positions), axis=0)
    unit, size = unit_of(max(float(field.max()), 1.0))
    dose = np.concatenate([data.dose(view) for view in range(data.n_views)]).mean()
    per_area = dose / area_per_shot(data.positions[0])
    slices = model.specimen.shapes(model.grid).transmission.shape[0]
    return {
        "patterns": f"{sum(data.n_shots)} of {grid.shape[0]} × {grid.shape[1]}",
        "beam": f"{grid.voltage_kv:g} kV" if grid.voltage_kv else f"{grid.wavelength:.4g} Å",
        "pixel": f"{grid.pixel[0]:.4g} × {grid.pixel[1]:.4g} Å",
        "field": f"{field[0] / size:.4g} × {field[1] / size:.4g} {unit}",
        "dose": f"{dose:.4g} quanta per pattern, {per_area:.3g} per Å²",
        "slices": str(slices),
    }
