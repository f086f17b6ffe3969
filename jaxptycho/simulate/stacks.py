"""Slices of atoms on the fine grid of a simulation.

Unlike the specimen part `Atoms`, which keeps every atom in every slice for its derivatives, atoms
are left out of the slices that they do not reach; so the work is proportional to their number.
"""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int
from scipy.special import erf

from ..parts.slices import Sliced
from ..parts.specimen import AbstractSpecimen
from ..physics import scattering, waves
from ..physics.grids import Grid
from ..physics.potentials import Blobs, finite, of_spectrum, spectrum
from ..physics.types import Pair, Slices, Stack

FRACTIONS = (1.0, 0.7, 0.5, 0.25)  # of the frequencies: narrow Gaussians need all
REACH = 5.0  # Å along z, range of an atom
NEGLIGIBLE = 1e-5  # of an atom's f(0)


class Box(NamedTuple):
    """The box that is simulated."""

    origin: np.ndarray  # Å (z, y, x): entrance face, and pixel [0, 0]
    faces: np.ndarray  # Å [slice, 2] from the entrance face
    grid: Grid  # of the box

    @property
    def thickness(self) -> float:
        """Å, of one slice."""
        return float(self.faces[0, 1] - self.faces[0, 0])


class Transmissions(AbstractSpecimen):
    """A stack that is computed already."""

    transmission: Slices
    thickness: float
    origin: Pair

    def slices(self, grid: Grid) -> Sliced:
        return Sliced(self.transmission, self.thickness, self.origin)


class Kind(eqx.Module):
    """Blobs whose spectra end at the frequencies of an array of `shape` over the box, and are
    multiplied by one `factor`."""

    blobs: Blobs  # [slice, blob], padded with volume 0 to a common number
    factor: Float[np.ndarray | Array, "y f"] | None
    shape: tuple[int, int] = eqx.field(static=True)


class Content(eqx.Module):
    """Contents of every slice: Gaussians or points of several kinds, and their positions."""

    kinds: tuple[Kind, ...]
    places: Float[np.ndarray | Array, "slice place 2"]  # Å
    widths: Float[np.ndarray | Array, " width"]  # Å²


def content(
    numbers: Int[np.ndarray, " atom"],
    positions: Float[np.ndarray, "atom 3"],
    debye_waller: Float[np.ndarray, " atom"],
    box: Box,
    parametrisation: str = "lobato",
    projection: str = "finite",
) -> Content:
    """Atoms over the box, slice by slice; `positions` are (z, y, x) [Å].

    The first and the last slice include the parts of atoms beyond them.
    """
    own = positions - box.origin
    extent = np.array(box.grid.shape) * box.grid.pixel
    over = np.flatnonzero(((own[:, 1:] >= 0) & (own[:, 1:] < extent)).all(1))
    over = over[np.argsort(own[over, 0])]
    sort = _whole if projection == "infinite" or not len(over) else _cut
    edges = np.concatenate([[-np.inf], box.faces[1:, 0], [np.inf]])
    return sort(numbers[over], own[over], debye_waller[over], edges, box.grid, parametrisation)


def _whole(numbers, positions, debye_waller, edges, grid: Grid, parametrisation: str) -> Content:
    """A point for every atom, and a kind for every element and vibration, with its scattering
    factor.
    """
    elements, own = np.unique(np.stack([numbers, debye_waller], 1), axis=0, return_inverse=True)
    k2 = np.asarray(grid.k2(), float)[:, : grid.shape[1] // 2 + 1]
    slices = [slice(*ends) for ends in pairwise(np.searchsorted(positions[:, 0], edges))]

    def kind(number: int, z: float, b: float) -> Kind:
        factor = scattering.scattering_factor(int(z), k2, parametrisation) * np.exp(-b / 4 * k2)
        atoms = [np.flatnonzero(own[here] == number) for here in slices]
        points = [(np.full(len(atom), scattering.VOLT_ANGSTROM2), atom, 0 * atom) for atom in atoms]
        return Kind(_stacked_blobs(points), factor.astype(np.float32), grid.shape)

    kinds = tuple(kind(number, *element) for number, element in enumerate(elements))
    return Content(
        kinds, _stacked([positions[here, 1:] for here in slices]), np.zeros(1, np.float32)
    )


def _cut(numbers, positions, debye_waller, edges, grid: Grid, parametrisation: str) -> Content:
    """The part of every Gaussian between a slice's faces, and a kind for the broad ones, that need
    few frequencies.
    """
    atoms = scattering.gaussians(numbers, parametrisation, 1 / (2 * min(grid.pixel)))
    width = np.asarray(atoms.width) + debye_waller[:, None] / 4
    widths, number = np.unique(width, return_inverse=True)
    number = number.reshape(width.shape)
    volume = scattering.VOLT_ANGSTROM2 * np.asarray(atoms.amplitude)
    least = NEGLIGIBLE * np.abs(volume.sum(1, keepdims=True))
    needed = np.sqrt(-np.log(NEGLIGIBLE) / widths) * 2 * max(grid.pixel)  # of the frequencies
    level = (needed[:, None] <= FRACTIONS[1:]).sum(1)
    found = []
    places = []
    for top, bottom in pairwise(edges):
        near = slice(*np.searchsorted(positions[:, 0], [top - REACH, bottom + REACH]))
        part = volume[near] * finite(positions[near, :1], width[near], top, bottom, erf)
        atom, g = np.nonzero(np.abs(part) > least[near])
        found.append((part[atom, g], atom, number[near][atom, g]))
        places.append(positions[near, 1:])

    def kind(this: int, fraction: float) -> Kind:
        own = [tuple(column[level[blobs[2]] == this] for column in blobs) for blobs in found]
        ny, nx = (min(n, 2 * math.ceil(fraction * n / 2)) for n in grid.shape)
        return Kind(_stacked_blobs(own), None, (ny, nx))

    kinds = tuple(kind(this, fraction) for this, fraction in enumerate(FRACTIONS))
    return Content(kinds, _stacked(places), widths.astype(np.float32))


def _stacked_blobs(found) -> Blobs:
    volume, place, width = (_stacked(column) for column in zip(*found, strict=True))
    return Blobs(volume, place.astype(np.int32), width.astype(np.int32))


def _stacked(lists) -> np.ndarray:
    """Lists of different lengths as one array, of one of few sizes, so that little is compiled."""
    length = _round_up(max(1, *map(len, lists)))
    padded = [np.pad(v, [(0, length - len(v))] + [(0, 0)] * (v.ndim - 1)) for v in lists]
    return np.stack(padded).astype(np.float32)


def _round_up(n: int) -> int:
    """Up to an eighth more."""
    step = max(16, 2 ** math.floor(math.log2(n)) // 8)
    return -(-n // step) * step


@partial(jax.jit, static_argnums=1)
def projected(content: Content, grid: Grid) -> Stack:
    """Projected potential [V·Å] of every slice."""
    return _of_slices(content, grid, lambda potential: potential)


@partial(jax.jit, static_argnums=1)
def transmissions(content: Content, grid: Grid) -> Slices:
    """e^{iσV} of every slice, limited to 2/3 of the grid's frequencies (Kirkland 2010, §6.8)."""
    limit = waves.band_limit(grid)

    def transmission(potential: Array) -> Array:
        phase = grid.sigma * potential
        return jnp.fft.ifft2(limit * jnp.fft.fft2(jax.lax.complex(jnp.cos(phase), jnp.sin(phase))))

    return _of_slices(content, grid, transmission)


def _of_slices(content: Content, grid: Grid, answer: Callable):
    """`answer(projected potential [V·Å])` of every slice."""

    def one(slice: Any) -> Array:
        total = jnp.zeros(
            (grid.shape[0], grid.shape[1] // 2 + 1), jnp.result_type(content.widths, jnp.complex64)
        )
        for kind, blobs in zip(content.kinds, slice[0], strict=True):
            py, px = (n * p / m for n, p, m in zip(grid.shape, grid.pixel, kind.shape, strict=True))
            own = spectrum(blobs, slice[1], content.widths, kind.shape, (py, px))
            total = _added(total, own if kind.factor is None else jnp.asarray(kind.factor) * own)
        return answer(of_spectrum(total, grid.shape, grid.pixel))

    return jax.lax.map(one, ([kind.blobs for kind in content.kinds], content.places))


def _added(total: Complex[Array, "Y f"], spectrum: Complex[Array, "y h"]) -> Complex[Array, "Y f"]:
    """A spectrum that ends at lower frequencies added to one of the same box."""
    if spectrum.shape == total.shape:
        return total + spectrum
    half = len(spectrum) // 2  # its Nyquist frequency, where the spectrum has vanished
    columns = spectrum.shape[1]
    total = total.at[:half, :columns].add(spectrum[:half])
    return total.at[1 - half :, :columns].add(spectrum[half + 1 :])
