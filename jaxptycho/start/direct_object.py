"""First object from direct phase retrieval: the phase of the matched filter on a model's pixels."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.ndimage import map_coordinates

from ..data import Dataset
from ..direct.bright_field import BrightField, bright_field_of, in_squares
from ..direct.image import DirectImage
from ..direct.placement import AbstractPlacement, place
from ..direct.processor import over
from ..direct.transfer import Optics
from ..direct.weak_phase import matched_filter
from ..parts.specimen import AbstractSpecimen
from ..physics.grids import Grid
from ..physics.types import Pair

TAPER = 4  # positions of the scan over which a picture fades at its edges
PAD = 4  # entries of the scan beyond its edges, so that they do not meet
MAX_UPSAMPLE = 3
MAX_TERMS = 1.5e7  # computed in about a second
MIN_SQUARES = 150  # that sample a disc


def phase_picture(data: Dataset, optics: Optics, centre: Pair = (0.0, 0.0)) -> DirectImage:
    """Phase [rad] of a scan by the matched filter, regularised by its noise.

    `centre` (y, x) [rad] is that of the bright-field disc.
    """
    placement = placement_of(data.positions[0], optics)
    bright = bright_field_of(data, float(optics.semiangle), centre)
    (stack,) = over(data, summed_for(placement, bright))
    return matched_filter(stack, placement, optics).corrected()


def summed_for(placement: AbstractPlacement, bright: BrightField) -> BrightField:
    """Bright field in squares of pixels, so large that at most `MAX_TERMS` Γ(k, Q) are computed."""
    terms = len(bright.k) * math.prod(placement.grid.shape) / 2
    side = math.ceil(math.sqrt(terms / MAX_TERMS))
    side = max(1, min(side, int(math.sqrt(len(bright.k) / MIN_SQUARES))))
    return bright if side == 1 else in_squares(bright, side)


def placement_of(positions: Float[np.ndarray, "shot 2"], optics: Optics) -> AbstractPlacement:
    """Grid of a picture that resolves the bright field's limit 2α/λ, the edges of the scan faded.

    Up-sampled at most `MAX_UPSAMPLE` times.
    """
    nyquist = 4 * float(optics.radius)  # 1/Å, two samples in the shortest period
    step = math.sqrt(place(positions).grid.area)
    upsample = min(max(1, math.ceil(step * nyquist - 1e-6)), MAX_UPSAMPLE)
    return place(positions, None, upsample, TAPER, PAD)


def on_pixels(
    picture: DirectImage,
    positions: Float[np.ndarray, "shot 2"],
    pixel: Pair,
    origin: Pair,
    shape: tuple[int, int],
) -> Float[np.ndarray, "Y X"]:
    """Image at the pixels of an object whose pixel [0, 0] is at `origin` (y, x) [Å].

    By cubic splines; zero beyond the scan of `positions`.
    """
    to_entries = np.linalg.inv(picture.grid.steps)
    axes = (o + p * np.arange(n) for o, p, n in zip(origin, pixel, shape, strict=True))
    places = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    entries = (places - picture.grid.origin) @ to_entries
    scan = (positions - picture.grid.origin) @ to_entries
    inside = np.all((entries >= scan.min(0) - 0.5) & (entries <= scan.max(0) + 0.5), axis=-1)
    found = map_coordinates(picture.image, np.moveaxis(entries, -1, 0), order=3)
    return np.where(inside, found, 0.0)


def with_phase(
    specimen: AbstractSpecimen, grid: Grid, phase: Float[np.ndarray, "Y X"]
) -> AbstractSpecimen:
    """Specimen whose slices share a projected `phase` [rad] on its pixels evenly."""
    each = jnp.asarray(phase) / len(specimen.stack())
    return specimen.map_stacks(lambda values: values + each / specimen.radians(grid), ("phase",))
