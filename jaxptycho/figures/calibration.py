"""Sheet of a calibration: patterns, pictures, and the evidence for optics and orientation."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from ..direct.image import DirectImage
from ..start.calibrate import Calibration
from ..start.optics_table import MeasuredOptics
from .plots import scale_bar, show, unit_of

FADED = 0.5  # colour of what is not chosen


def draw_calibration(look: Calibration) -> Figure:
    """Mean pattern with its disc, virtual images, centre of mass, direct phase, and evidence."""
    pictures = look.pictures
    if pictures is None or look.optics is None:
        return _draw_patterns(look)
    figure = Figure((16, 7.6), layout="constrained")
    (pattern, bright, dark, moved), (parallax, phase, curve, bars) = figure.subplots(2, 4)
    draw_disc(pattern, look)
    show_direct(bright, pictures.bright_field)
    bright.set_title("Bright field")
    show_direct(dark, pictures.dark_field)
    dark.set_title("Dark field")
    show_field(moved, pictures.centre_of_mass, pictures.bright_field.pixel)
    show_direct(parallax, pictures.parallax)
    show_direct(phase, pictures.phase)
    phase.set_title("Phase, matched filter")
    draw_curve(curve, look.optics)
    draw_orientations(bars, look.optics.evidence, look.optics.transform, look.optics.ambiguous)
    return figure


def _draw_patterns(look: Calibration) -> Figure:
    """Mean and one pattern of a measurement without a bright-field disc."""
    figure = Figure((13, 4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    draw_disc(left, look)
    shots = np.array([look.data.n_shots[0] // 2])
    one = np.fft.fftshift(look.data.patterns(0, shots)[0])
    middle.imshow(np.sqrt(np.maximum(one, 0)), cmap="viridis")
    middle.set(title=f"Pattern {shots[0]} (√counts)", xticks=[], yticks=[])
    if look.hologram is None:
        right.axis("off")
    else:
        draw_orientations(right, look.hologram.evidence, look.hologram.transform)
    return figure


def draw_disc(ax: Axes, look: Calibration) -> None:
    """Mean pattern on a square-root scale, with the rim of the disc."""
    ax.imshow(np.sqrt(np.maximum(look.camera.mean, 0)), cmap="viridis")
    ax.set(title="Mean pattern (√counts)", xticks=[], yticks=[])
    disc = look.camera.disc
    if disc is None:
        return
    y, x = (n // 2 + c for n, c in zip(look.camera.mean.shape, disc.centre, strict=True))
    ax.add_patch(Circle((x, y), disc.radius, fill=False, color="w", lw=1, ls="--"))
    ax.plot(x, y, "+w", ms=7)
    steps = [1e3 * look.data.grid.wavelength * dk for dk in look.data.grid.dk]
    scale_bar(ax, look.camera.mean.shape, steps, {"mrad": 1.0})


def show_direct(ax: Axes, picture: DirectImage) -> None:
    """Picture of direct phase retrieval, without the entries added around the scan."""
    show(ax, picture.image, picture.pixel, picture.title, picture.unit)


def show_field(ax: Axes, field: Float[np.ndarray, "Y X 2"], pixel: tuple[float, float]) -> None:
    """Vectors of the centre of mass: hue is direction, brightness is length."""
    length = np.hypot(field[..., 0], field[..., 1])
    turn = np.mod(np.arctan2(field[..., 0], field[..., 1]) / (2 * np.pi), 1)
    shade = np.clip(length / max(np.percentile(length, 99), 1e-30), 0, 1)
    ax.imshow(colormaps["hsv"](turn)[..., :3] * shade[..., None], aspect=pixel[0] / pixel[1])
    ax.set(title="Centre of mass, hue: direction", xticks=[], yticks=[])
    scale_bar(ax, field.shape[:2], pixel)


def draw_curve(ax: Axes, optics: MeasuredOptics) -> None:
    """Fraction of the variance that a weak phase explains over the defocus."""
    unit, size = unit_of(np.abs(optics.curve.defocus).max())
    for name, values in optics.curve.explained.items():
        ax.plot(optics.curve.defocus / size, values, lw=1, label=name)
    ax.axvline(-optics.aberrations["C10"] / size, color="tab:red", lw=0.7, ls="--")
    ax.legend(fontsize="small")
    ax.set(title="Explained variance J", xlabel=f"defocus ({unit})")


def draw_orientations(
    ax: Axes, evidence: Mapping[str, float], transform: str, ambiguous: bool = False
) -> None:
    """Evidence for each of the eight orientations of the scan, the chosen one in colour."""
    colours = ["tab:red" if name == transform else str(FADED) for name in evidence]
    ax.barh(list(evidence), list(evidence.values()), color=colours)
    ax.invert_yaxis()
    ax.set(title=f"Orientation: {'ambiguous' if ambiguous else transform}", xlabel="J")
