"""A kind of specimen that the package does not know: slices of Gaussian blobs of phase."""

from dataclasses import replace
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from jaxptycho import AbstractSpecimen, Sliced, SliceStack
from jaxptycho.parts.indexed import add


class Blobs(AbstractSpecimen):
    """Blobs of one width in every slice, their positions and peak phases refined."""

    positions: jnp.ndarray  # Å (y, x): [slice, blob, 2]
    peaks: jnp.ndarray  # rad: [slice, blob]
    thickness: jnp.ndarray  # Å, of every slice
    origin: jnp.ndarray  # Å
    width: float = eqx.field(static=True)  # Å, standard deviation
    shape: tuple = eqx.field(static=True)
    fixed_by_default: ClassVar = ("thickness", "origin")

    def phases(self, grid):
        y, x = (np.arange(n) * p for n, p in zip(self.shape, grid.pixel, strict=True))
        away = self.positions - self.origin
        rows = jnp.exp(-((y - away[..., :1]) ** 2) / (2 * self.width**2))
        columns = jnp.exp(-((x - away[..., 1:]) ** 2) / (2 * self.width**2))
        return jnp.einsum("zb,zby,zbx->zyx", self.peaks, rows, columns)

    def slices(self, grid):
        return Sliced(jnp.exp(1j * self.phases(grid)), self.thickness, self.origin)

    def in_slices(self, grid):
        return SliceStack(self.phases(grid), None, self.thickness, self.origin)

    def scale(self, grid):
        return {"positions": min(grid.pixel)}

    def nonnegative(self):
        return replace(self, peaks=jnp.maximum(self.peaks, 0))

    @property
    def position(self):
        return self.origin

    def move(self, by):
        moved = add(self.positions, by), add(self.origin, by)
        return replace(self, positions=moved[0], origin=moved[1])

    def with_slices(self, grid, slices):
        count = len(self.peaks)
        if slices % count:
            raise ValueError(
                f"{count} slices of blobs cannot be cut into {slices}; give a multiple"
            )
        factor = slices // count
        return replace(
            self,
            positions=jnp.repeat(self.positions, factor, 0),
            peaks=jnp.repeat(self.peaks, factor, 0) / factor,
            thickness=self.thickness / factor,
        )


class Bare(AbstractSpecimen):
    """The least that a specimen needs: its slices."""

    blobs: Blobs

    def slices(self, grid):
        return self.blobs.slices(grid)


class Relief(AbstractSpecimen):
    """A surface of known material: the height of every pixel decides phase and absorption."""

    height: jnp.ndarray  # Å: [slice, y, x]
    origin: jnp.ndarray  # Å
    per_angstrom: float = eqx.field(static=True)  # rad
    held: ClassVar = {"phase": "height"}
    labels: ClassVar = {"phase": "height (Å)"}
    fixed_by_default: ClassVar = ("origin",)

    def slices(self, grid):
        phase = self.per_angstrom * self.height
        return Sliced(jnp.exp(1j * phase), 50.0, self.origin)

    def radians(self, grid):
        return self.per_angstrom

    def scale(self, grid):
        return {"height": 1 / self.per_angstrom}


def make(empty, grid, blobs=4, width=1.0, seed=0):
    """Faint blobs at random positions within the middle half of an empty specimen."""
    slices, rows, columns = empty.phase.shape
    size = np.array([rows, columns]) * grid.pixel
    rng = np.random.default_rng(seed)
    positions = np.asarray(empty.origin) + rng.uniform(0.25, 0.75, (slices, blobs, 2)) * size
    peaks = jnp.full((slices, blobs), 0.1)
    shape = (rows, columns)
    return Blobs(jnp.asarray(positions), peaks, empty.thickness, empty.origin, width, shape)
