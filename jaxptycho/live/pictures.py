"""Pictures of a series from the states of its processors, while frames are still missing."""

import math
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from ..direct.bright_field import BrightField, BrightFieldStack
from ..direct.centre_of_mass import CentresOfMass, integrated_centre_of_mass
from ..direct.moments import PixelMoments
from ..direct.placement import AbstractPlacement, place
from ..direct.transfer import Optics
from ..direct.virtual_detector import VirtualSignals
from ..direct.weak_phase import matched_filter
from ..start.direct_object import placement_of, summed_for
from .scan import LiveScan


class Results(NamedTuple):
    """Results of `linear_processors`."""

    moments: PixelMoments
    signals: VirtualSignals
    centres: CentresOfMass
    stack: BrightFieldStack


class LiveImage(NamedTuple):
    """Image of the specimen or of the detector; NaN where nothing has come yet."""

    image: Float[np.ndarray, "Y X"]
    unit: str
    title: str


@dataclass(frozen=True, eq=False)
class Canvas:
    """Grids of the pictures of the commanded scan, for any of its frames."""

    scan: LiveScan
    coarse: AbstractPlacement
    fine: AbstractPlacement
    squares: BrightField  # pixels of the disc that the phase is computed from
    bright: BrightField

    @classmethod
    def of(cls, scan: LiveScan, bright: BrightField) -> "Canvas":
        """Canvas of a scan whose bright field is kept by `bright`."""
        fine = placement_of(scan.positions, scan.lens())
        return cls(scan, place(scan.positions), fine, summed_for(fine, bright), bright)


def quick_pictures(canvas: Canvas, results: Results) -> dict[str, LiveImage]:
    """Bright field and mean pattern, which cost milliseconds."""
    signals = results.signals
    seen = canvas.scan.usable(signals.seen)
    bright = scan_image(canvas.coarse, signals.signals[:, 0], seen)
    return {
        "bright_field": LiveImage(bright, "counts", "Bright field"),
        "mean_pattern": LiveImage(results.moments.mean, "counts", "Mean pattern"),
    }


def phase_pictures(canvas: Canvas, results: Results, optics: Optics) -> dict[str, LiveImage]:
    """Phase by the matched filter, and from the centre of mass, with any optics.

    There are none before a shot with a known position has come.
    """
    seen = canvas.scan.usable(results.stack.seen)
    if not seen.any():
        return {}
    fine = masked(canvas.fine, seen)
    stack = in_pixels_of(canvas.squares, canvas.bright, results.stack)
    phase = matched_filter(stack, fine, optics).corrected()
    coarse = masked(canvas.coarse, seen)
    integrated = integrated_centre_of_mass(results.centres, coarse, optics)
    return {
        "phase": LiveImage(phase.image, "rad", "Phase"),
        "centre_of_mass": LiveImage(integrated.image, "rad", "Phase from the centre of mass"),
    }


def masked(placement: AbstractPlacement, seen: Bool[np.ndarray, " shot"]) -> AbstractPlacement:
    """Placement in which shots that have not come weigh nothing."""
    return eqx.tree_at(lambda p: p.weight, placement, placement.weight * seen)


def scan_image(
    placement: AbstractPlacement,
    values: Float[np.ndarray, " shot"],
    seen: Bool[np.ndarray, " shot"],
) -> Float[np.ndarray, "Y X"]:
    """Image of one value of every shot, NaN where no shot has come."""
    both = jnp.asarray(np.stack([np.where(seen, values, 0.0), seen.astype(float)], -1))
    spectra = np.asarray(placement.transform(both))
    image, weight = np.fft.irfft2(spectra, placement.grid.shape)
    covered = weight > 0.5
    return np.where(covered, image / np.where(covered, weight, 1), np.nan)


def in_pixels_of(
    squares: BrightField, bright: BrightField, stack: BrightFieldStack
) -> BrightFieldStack:
    """A kept stack, summed in squares of pixels."""
    if squares is bright:
        return stack
    column = {int(pixel): i for i, pixel in enumerate(bright.pixels)}
    members = np.vectorize(column.__getitem__)(squares.pixels)
    counts = jnp.sum(stack.counts[:, members], -1, dtype=jnp.float32)
    return BrightFieldStack(counts, stack.positions, squares.k, stack.seen, stack.grid)


def dose(canvas: Canvas, results: Results) -> dict[str, float]:
    """Counts per pattern and per area [1/Å²] of the frames that have come."""
    seen = results.signals.seen
    counts = float(results.signals.total[seen].mean()) if seen.any() else math.nan
    per_area = counts / canvas.coarse.grid.area
    return {"counts_per_pattern": counts, "counts_per_square_angstrom": per_area}


def results_of(processors: tuple[Any, ...], states: tuple[Any, ...]) -> Results:
    """Results of the states of `linear_processors`, the first of `processors`."""
    linear = zip(processors, states, strict=True)
    return Results(*(p.result(s) for p, s in islice(linear, len(Results._fields))))


def further_results(
    canvas: Canvas,
    processors: tuple[Any, ...],
    states: tuple[Any, ...],
    seen: Bool[np.ndarray, " shot"],
) -> tuple[dict[str, float], dict[str, LiveImage]]:
    """Numbers and images that the user's processors, behind the linear ones, return by name.

    An image is [Y, X], or one value of every shot. Raises ValueError for anything else.
    """
    numbers: dict[str, float] = {}
    images: dict[str, LiveImage] = {}
    first = len(Results._fields)
    for processor, state in zip(processors[first:], states[first:], strict=True):
        for name, value in dict(processor.result(state)).items():
            array = np.asarray(value, float)
            if array.ndim == 0:
                numbers[name] = float(array)
            elif array.shape == seen.shape:
                image = scan_image(canvas.coarse, array, canvas.scan.usable(seen))
                images[name] = LiveImage(image, "", name.replace("_", " "))
            elif array.ndim == 2:
                images[name] = LiveImage(array, "", name.replace("_", " "))
            else:
                raise ValueError(
                    f"{type(processor).__name__} returns {name} of shape {array.shape}; a number, "
                    f"an image [Y, X] or one value for each of {len(seen)} shots is required"
                )
    return numbers, images
