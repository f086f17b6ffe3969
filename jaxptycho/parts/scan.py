"""Scans: positions of the probe on the specimen."""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..physics.grids import Grid
from ..physics.types import Numbers, Pair, PyTree, Scalar
from .indexed import Varying, add, map_varying

Place = Float[Array | np.ndarray, "2"]  # (y, x)


class AbstractScan(eqx.Module):
    """Position of the probe in every shot. A kind of scan needs only `position`."""

    redundant: ClassVar[bool] = False  # whether `reduced` changes anything

    @abc.abstractmethod
    def position(self) -> Float[Array, "2"]:
        """Position of the probe's centre on the specimen (y, x) [Å]."""

    def move(self, by: PyTree) -> "AbstractScan":
        """The scan with every position moved by `by` (y, x) [Å], shared, PerShot or PerView."""
        raise ValueError(f"{type(self).__name__} cannot be moved; use a FreeScan or an AffineScan")

    def reduced(self) -> "AbstractScan":
        """The scan without displacements that other numbers of it describe."""
        return self

    def map_linearly(self, matrix: Float[Array, "2 2"], about: Pair) -> "AbstractScan":
        """The scan with positions a + M(r − a) for the `matrix` M, `about` the point a [Å]."""
        raise ValueError(f"{type(self).__name__} cannot be mapped; use a FreeScan or an AffineScan")


class FreeScan(AbstractScan):
    """A separate position for every shot."""

    positions: Varying[Pair]  # Å

    def position(self) -> Any:
        return self.positions

    def move(self, by: PyTree) -> "FreeScan":
        return eqx.tree_at(lambda s: s.positions, self, add(self.positions, by))

    def map_linearly(self, matrix: Float[Array, "2 2"], about: Pair) -> "FreeScan":
        middle = jnp.asarray(about)
        mapped = map_varying(lambda place: middle + matrix @ (place - middle), self.positions)
        return FreeScan(mapped)

    def scale(self, grid: Grid) -> dict[str, Any]:
        return {"positions": max(grid.pixel)}


class AffineScan(AbstractScan):
    """Nominal positions mapped linearly (scale, shear, rotation) about `pivot`, and shifted.

    `residual` is the remaining displacement of every shot. The matrix is moved only where rates
    name it: a free specimen follows a wrong map, which steps of first order do not find.
    """

    nominal: Varying[Place]  # Å
    matrix: Varying[Float[Array, "2 2"]]
    shift: Varying[Place]  # Å
    residual: Varying[Place]  # Å
    pivot: Varying[Place]  # Å
    fixed_by_default: ClassVar = ("nominal", "pivot", "matrix")
    redundant: ClassVar[bool] = True

    def position(self) -> Float[Array, "2"]:
        turned = self.matrix @ (self.nominal - self.pivot)
        return turned + self.pivot + self.shift + self.residual

    def move(self, by: PyTree) -> "AffineScan":
        return eqx.tree_at(lambda s: s.shift, self, add(self.shift, by))

    def reduced(self) -> "AffineScan":
        residual = jax.tree.map(_without_linear_part, self.residual, self.nominal)
        return eqx.tree_at(lambda s: s.residual, self, residual)

    def map_linearly(self, matrix: Float[Array, "2 2"], about: Pair) -> "AffineScan":
        middle = jnp.asarray(about) - self.pivot
        return eqx.tree_at(
            lambda s: (s.matrix, s.shift, s.residual),
            self,
            (
                map_varying(lambda old: matrix @ old, self.matrix),
                map_varying(lambda old: middle + matrix @ (old - middle), self.shift),
                map_varying(lambda old: matrix @ old, self.residual),
            ),
        )

    def scale(self, grid: Grid) -> dict[str, Any]:
        pixel = max(grid.pixel)
        return {"nominal": pixel, "matrix": 1e-2, "shift": pixel, "residual": pixel, "pivot": pixel}


def _without_linear_part(
    residual: Float[Array, "*shots 2"], nominal: Float[Array | np.ndarray, "*shots 2"]
) -> Float[Array, "*shots 2"]:
    """Residuals less their mean and the linear map of the nominal positions that fits them best."""
    if residual.ndim < 2:
        return residual
    places = (nominal - nominal.mean(0)).astype(residual.dtype)
    centred = residual - residual.mean(0)
    fitted = jnp.linalg.pinv(places.T @ places) @ (places.T @ centred)
    return centred - places @ fitted


def linear_map(
    scale: Pair = (1.0, 1.0), shear: Scalar = 0.0, rotation: Scalar = 0.0
) -> Float[Array, "2 2"]:
    """Matrix on (y, x) that scales, then shears x by `shear`·y and rotates by `rotation` [rad]."""
    c, s = jnp.cos(rotation), jnp.sin(rotation)
    turn = jnp.array([[c, -s], [s, c]])
    return turn @ jnp.array([[1.0, 0.0], [shear, 1.0]]) @ jnp.diag(jnp.asarray(scale, float))


def map_parameters(matrix: Numbers) -> Float[np.ndarray, "4"]:
    """Scales (y, x), shear and rotation [rad] of a matrix on (y, x); inverse of `linear_map`."""
    matrix = np.asarray(matrix, float)
    rotation = np.arctan2(-matrix[0, 1], matrix[1, 1])
    c, s = np.cos(rotation), np.sin(rotation)
    upright = np.array([[c, s], [-s, c]]) @ matrix
    return np.array([upright[0, 0], upright[1, 1], upright[1, 0] / upright[0, 0], rotation])
