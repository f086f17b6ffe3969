"""Atoms → slices on the fine grid of a simulation.

Unlike the specimen part `Atoms`, which keeps every atom in every slice for its derivatives,
this leaves out what does not reach a slice; so the work grows with the atoms alone.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy.special import erf

from ..parts.specimen import AbstractSpecimen, Sliced
from ..physics import scattering, waves
from ..physics.grids import Grid
from ..physics.potentials import PROJECTIONS, Blobs, image
from ..physics.types import Pair, Slices, Stack

REACH = 5.0  # Å along z, beyond which an atom leaves nothing
NEGLIGIBLE = 1e-5  # of an atom's f(0)
ROUND = 1024  # atoms, widths, and Gaussians of a slice, up to a multiple of this


class Box(NamedTuple):
    """The box that is simulated."""

    origin: np.ndarray  # Å (z, y, x): entrance face, and pixel [0, 0]
    faces: np.ndarray  # Å [slice, 2] from the entrance face
    grid: Grid  # of the whole box

    @property
    def thickness(self) -> float:
        """Å, of one slice."""
        return float(self.faces[0, 1] - self.faces[0, 0])


class Transmissions(AbstractSpecimen):
    """A stack that is computed already."""

    transmission: Slices
    thickness: float
    origin: Pair

    def slices(self, grid):
        return Sliced(self.transmission, self.thickness, self.origin)


class Content(NamedTuple):
    """What every slice holds: Gaussians (padded with volume 0 to a common number), places and widths."""

    blobs: Blobs  # [slice, blob]
    places: Float[np.ndarray, "atom 2"]  # Å
    widths: Float[np.ndarray, " width"]  # Å²


def content(
    numbers: Int[np.ndarray, " atom"],
    positions: Float[np.ndarray, "atom 3"],
    debye_waller: Float[np.ndarray, " atom"],
    box: Box,
    parametrisation: str = "lobato",
    projection: str = "finite",
) -> Content:
    """The Gaussians of all atoms over the box, slice by slice; `positions` are (z, y, x) [Å]."""
    own = positions - box.origin
    extent = np.array(box.grid.shape) * box.grid.pixel
    over = np.flatnonzero(((own[:, 1:] >= 0) & (own[:, 1:] < extent)).all(1))
    over = over[np.argsort(own[over, 0])]
    own = own[over]
    atoms = scattering.gaussians(numbers[over], parametrisation, 1 / (2 * min(box.grid.pixel)))
    width = np.asarray(atoms.width) + debye_waller[over, None] / 4
    widths, number = np.unique(width, return_inverse=True)
    volume = scattering.VOLT_ANGSTROM2 * np.asarray(atoms.amplitude)
    least = NEGLIGIBLE * np.abs(volume.sum(1, keepdims=True))
    found = []
    for top, bottom in box.faces:
        first, last = np.searchsorted(own[:, 0], [top - REACH, bottom + REACH])
        part = volume[first:last] * PROJECTIONS[projection](own[first:last, :1], width[first:last], top, bottom, erf)
        atom, g = np.nonzero(np.abs(part) > least[first:last])
        found.append((part[atom, g], first + atom, number.reshape(width.shape)[first + atom, g]))
    return Content(_padded(found), _rounded_up(own[:, 1:]), _rounded_up(widths))


def _padded(found) -> Blobs:
    """Lists of different lengths as arrays of few different sizes, so that little is compiled."""
    longest = max(len(volume) for volume, _, _ in found)
    volume, place, width = (
        np.stack([np.pad(v, (0, _round_up(longest) - len(v))) for v in column]) for column in zip(*found, strict=True)
    )
    return Blobs(volume.astype(np.float32), place.astype(np.int32), width.astype(np.int32))


def _rounded_up(values: np.ndarray) -> np.ndarray:
    padding = [(0, _round_up(len(values)) - len(values))] + [(0, 0)] * (values.ndim - 1)
    return np.pad(values, padding, constant_values=1.0).astype(np.float32)


def _round_up(n: int) -> int:
    return max(ROUND, -(-n // ROUND) * ROUND)


@partial(jax.jit, static_argnums=1)
def projected(content: Content, grid: Grid) -> Stack:
    """Projected potential [V·Å] of every slice."""
    blobs, places, widths = content
    return jax.lax.map(lambda own: image(own, places, widths, grid.shape, grid.pixel), blobs)


@partial(jax.jit, static_argnums=1)
def transmissions(content: Content, grid: Grid) -> Slices:
    """e^{iσV} of every slice, limited to 2/3 of the grid's frequencies (Kirkland 2010, §6.8)."""
    blobs, places, widths = content
    limit = waves.band_limit(grid)

    def one(own):
        phase = grid.sigma * image(own, places, widths, grid.shape, grid.pixel)
        return jnp.fft.ifft2(limit * jnp.fft.fft2(jax.lax.complex(jnp.cos(phase), jnp.sin(phase))))

    return jax.lax.map(one, blobs)
