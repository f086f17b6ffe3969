"""First object of a thick crystal: columns of atoms where the dark field is bright.

Along a zone axis the loss of columns that are too weak rises with their strength: an empty specimen
is on one side of a hump, the crystal on the other one, and beyond some 20 nm no descent crosses it.
Columns as narrow as atoms and about as strong as these are on the right side.
"""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.interpolate import CloughTocher2DInterpolator

from ..analysis.maxima import between_pixels, local_maxima
from ..analysis.scanned import encloses_area
from ..data import Dataset
from ..direct.processor import over
from ..direct.virtual_detector import VirtualDetector, ring_segments
from ..inverse.losses import amplitude
from ..model import Model, predict
from .descan import disc_offsets
from .direct_object import with_phase

INNER = 1.5  # semiangles, from which the dark field is counted
REACH = 2.0  # semiangles, that the camera has to see
WIDTH = 0.2  # Å, standard deviation of the phase of a column
CONTRAST = 1.7  # power of the atomic number in the dark field, that of the phase is about 1
FAINTEST = 0.1  # of the range of the dark field, that a column rises above the darkest place
STRENGTHS = np.geomspace(0.01, 0.6, 15)  # rad/Å at the middle of the brightest column
JUDGES = 32  # shots

Places = Float[np.ndarray, "n 2"]
Axes = tuple[Float[np.ndarray, " Y"], Float[np.ndarray, " X"]]


def with_columns(model: Model, data: Dataset, semiangle: float) -> Model:
    """The model with columns of the strength that fits best, or as it is where none fits better.

    `model` holds an empty specimen, `semiangle` [rad] is that of the bright-field disc. A camera
    that does not reach to twice the semiangle shows no columns, nor does a scan along a line.
    """
    grid = model.grid
    reaches = data.grid.wavelength / (2 * max(data.grid.pixel)) >= REACH * semiangle
    if not (reaches and encloses_area(model)):
        return model
    axes = pixel_axes(model)
    signals = dark_field(data, semiangle)
    places, heights = columns(data.positions[0], signals, axes, grid.wavelength / (2 * semiangle))
    return with_strength(model, data, column_shape(places, heights, axes))


def with_strength(model: Model, data: Dataset, shape: Float[np.ndarray, "Y X"]) -> Model:
    """The model with a phase of this `shape` as strong as fits best, or as it is.

    Judged by the shots in the middle of the scan, around which the most columns are known.
    """
    depth = float(np.sum(model.specimen.thicknesses(model.grid)))
    away = np.linalg.norm(data.positions[0] - data.positions[0].mean(0), axis=1)
    shots = np.argsort(away, kind="stable")[:JUDGES]
    counts = jnp.asarray(data.patterns(0, shots), float)

    def of_strength(strength: float) -> Model:
        phase = strength * depth * shape
        return replace(model, specimen=with_phase(model.specimen, model.grid, phase))

    tried = [model, *map(of_strength, STRENGTHS)]
    return min(tried, key=lambda one: float(_misfit(one, shots, counts)))


def pixel_axes(model: Model) -> Axes:
    """Coordinates (y, x) [Å] of the pixels of the specimen."""
    corner = np.asarray(model.specimen.slices_origin(model.grid), float)
    shape = model.specimen.shapes(model.grid).plane
    y, x = (o + p * np.arange(n) for o, p, n in zip(corner, model.grid.pixel, shape, strict=True))
    return y, x


@eqx.filter_jit
def _misfit(model: Model, shots: Array | np.ndarray, counts: Array) -> jax.Array:
    """Amplitude loss of some shots."""
    return jnp.sum(jax.vmap(amplitude)(predict(model, shots), counts))


def dark_field(data: Dataset, semiangle: float) -> Float[np.ndarray, " shot"]:
    """Counts of every shot beyond `INNER` semiangles [rad] from the middle of the disc."""
    y, x = disc_offsets(data).mean(0) * data.grid.dk * data.grid.wavelength
    centre = float(y), float(x)
    masks = ring_segments(data.grid, INNER * semiangle, np.inf, 1, centre)
    detector = VirtualDetector(masks, data.grid, data.n_shots[0], centre)
    (found,) = over(data, detector)
    return found.signals[:, 0]


def columns(
    positions: Float[np.ndarray, "shot 2"],
    signals: Float[np.ndarray, " shot"],
    axes: Axes,
    distance: float,
) -> tuple[Places, Float[np.ndarray, " n"]]:
    """Places (y, x) [Å] of columns, and their phase relative to that of the brightest.

    `axes` are the coordinates of the pixels on which they are looked for, `distance` [Å] is the
    least between two of them.
    """
    y, x = np.meshgrid(*axes, indexing="ij")
    dark = float(signals.min())
    image = CloughTocher2DInterpolator(positions, signals - dark)(y, x)
    image = np.nan_to_num(image)  # beyond the scan
    steps = tuple(float(axis[1] - axis[0]) for axis in axes)
    peaks = local_maxima(image, steps, FAINTEST * float(np.ptp(signals)), distance)
    heights = image[tuple(peaks.T)]
    exact = peaks + np.array([between_pixels(image, peak) for peak in peaks]).reshape(-1, 2)
    places = np.array([axis[0] for axis in axes]) + exact * steps
    return places, (heights / max(heights.max(initial=0.0), 1e-30)) ** (1 / CONTRAST)


def column_shape(
    places: Places,
    heights: Float[np.ndarray, " n"],
    axes: Axes,
) -> Float[np.ndarray, "Y X"]:
    """Sum of Gaussians of `WIDTH` and of these heights on pixels."""
    rows, columns = (
        np.exp(-((axis[None] - at[:, None]) ** 2) / (2 * WIDTH**2))
        for axis, at in zip(axes, places.T, strict=True)
    )
    return np.einsum("n,ny,nx->yx", heights, rows, columns)
