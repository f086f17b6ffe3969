"""Pictures of a scan in one read: virtual detectors, centre of mass and direct phase."""

from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..data import Dataset
from ..direct.bright_field import bright_field_of
from ..direct.centre_of_mass import CentreOfMass
from ..direct.image import DirectImage
from ..direct.parallax import parallax
from ..direct.placement import place
from ..direct.processor import over
from ..direct.transfer import Optics, displacement
from ..direct.virtual_detector import VirtualDetector, ring_segments, virtual_image
from ..direct.weak_phase import matched_filter
from ..physics.types import Pair
from .direct_object import placement_of, summed_for

DARK = 1.1  # semiangles at which the dark field begins
# 1/Å, beyond which neighbouring atoms scatter independently; below, ice may outshine proteins
ATOMIC = 0.25


class DirectPictures(NamedTuple):
    """Pictures of the specimen before any reconstruction, in the frame of the positions."""

    bright_field: DirectImage
    dark_field: DirectImage
    atomic_field: DirectImage | None  # of mass: the dark field beyond `ATOMIC`, if it is in view
    centre_of_mass: Float[np.ndarray, "Y X 2"]  # 1/Å (y, x), on the grid of `bright_field`
    parallax: DirectImage
    phase: DirectImage  # matched filter

    @property
    def caution(self) -> str | None:
        """Why the phase may be qualitative only."""
        return self.phase.caution or self.parallax.caution


def direct_pictures(
    data: Dataset,
    optics: Optics,
    centre: Pair = (0.0, 0.0),
    shifts: Float[np.ndarray, "shot 2"] | None = None,
) -> DirectPictures:
    """All pictures of a scan; `centre` (y, x) [rad] is that of the bright-field disc.

    `shifts` (y, x) [1/Å] are those of the disc in every shot: a pixel k of a disc moved by s is at
    k − s, whose image is displaced by ∇χ(k)/2π − ∇χ(s)/2π, as that of another position is.
    """
    positions = data.positions[0]
    shifts = np.zeros_like(positions) if shifts is None else shifts
    moved = positions - np.asarray(displacement(optics, jnp.asarray(shifts)), float)
    semiangle = float(optics.semiangle)
    n_shots = data.n_shots[0]
    middle = (float(centre[0]), float(centre[1]))
    widths = (n * dk for n, dk in zip(data.grid.shape, data.grid.dk, strict=True))
    width = min(widths) * data.grid.wavelength
    atomic = max(DARK * semiangle, ATOMIC * data.grid.wavelength)
    rings = [(0.0, semiangle), (DARK * semiangle, 2 * width)]
    in_view = atomic < width / 2
    rings += [(atomic, 2 * width)] * in_view
    masks = np.concatenate([ring_segments(data.grid, *ring, centre=middle) for ring in rings])
    coarse = place(positions)
    fine = placement_of(moved, optics)
    stack, signals, moments = over(
        data,
        summed_for(fine, bright_field_of(data, semiangle, middle)),
        VirtualDetector(masks, data.grid, n_shots, middle),
        CentreOfMass(data.grid, n_shots, middle),
    )
    stack = replace(stack, positions=moved)
    centres = moments.centres - shifts
    offsets = centres - centres[moments.seen].mean(0)
    spectra = coarse.transform(jnp.asarray(offsets))
    return DirectPictures(
        virtual_image(signals, coarse, optics, 0),
        virtual_image(signals, coarse, optics, 1),
        virtual_image(signals, coarse, optics, 2) if in_view else None,
        np.moveaxis(np.fft.irfft2(np.asarray(spectra), coarse.grid.shape), 0, -1),
        parallax(stack, fine, optics),
        matched_filter(stack, fine, optics).corrected(),
    )
