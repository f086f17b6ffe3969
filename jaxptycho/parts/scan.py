"""Where the probe stands on the specimen."""

import abc
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..physics.grids import Grid
from ..physics.types import Pair
from .indexed import Varying, add

Place = Float[Array | np.ndarray, "2"]  # (y, x)


class AbstractScan(eqx.Module):
    @abc.abstractmethod
    def position(self) -> Float[Array, "2"]:
        """Where the probe's centre stands on the specimen (y, x) [Å]."""

    def move(self, by: PyTree) -> "AbstractScan":
        """The scan with every position moved by `by` (y, x) [Å], shared, PerShot or PerView."""
        raise ValueError(f"{type(self).__name__} cannot be moved; use a FreeScan or an AffineScan")


class FreeScan(AbstractScan):
    """Every shot has its own position."""

    positions: Varying[Pair]  # Å

    def position(self):
        return self.positions

    def move(self, by):
        return eqx.tree_at(lambda s: s.positions, self, add(self.positions, by))

    def scale(self, grid: Grid):
        return {"positions": max(grid.pixel)}


class AffineScan(AbstractScan):
    """Nominal positions through one linear map (scale, shear, rotation) about `pivot`, a
    shift, and what remains for every shot."""

    nominal: Varying[Place]  # Å
    matrix: Varying[Float[Array, "2 2"]]
    shift: Varying[Place]  # Å
    residual: Varying[Place]  # Å
    pivot: Varying[Place]  # Å
    given: ClassVar = ("nominal", "pivot")

    def position(self):
        turned = self.matrix @ (self.nominal - self.pivot)
        return turned + self.pivot + self.shift + self.residual

    def move(self, by):
        return eqx.tree_at(lambda s: s.shift, self, add(self.shift, by))

    def scale(self, grid: Grid):
        pixel = max(grid.pixel)
        return {"nominal": pixel, "matrix": 1e-2, "shift": pixel, "residual": pixel, "pivot": pixel}


def linear_map(scale=(1.0, 1.0), shear=0.0, rotation=0.0) -> Float[Array, "2 2"]:
    """Matrix on (y, x): scales, then shears x by `shear`·y, then rotates by `rotation` [rad]."""
    c, s = jnp.cos(rotation), jnp.sin(rotation)
    turn = jnp.array([[c, -s], [s, c]])
    return turn @ jnp.array([[1.0, 0.0], [shear, 1.0]]) @ jnp.diag(jnp.asarray(scale, float))


def map_parameters(matrix) -> Float[np.ndarray, "4"]:
    """Scales (y, x), shear and rotation [rad] of a matrix on (y, x), the inverse of `linear_map`."""
    matrix = np.asarray(matrix, float)
    rotation = np.arctan2(-matrix[0, 1], matrix[1, 1])
    c, s = np.cos(rotation), np.sin(rotation)
    upright = np.array([[c, s], [-s, c]]) @ matrix
    return np.array([upright[0, 0], upright[1, 1], upright[1, 0] / upright[0, 0], rotation])
