"""Layout of a specimen too large for one device, in slabs of rows along y.

Every slice is made of the rows of its slab only: matter acts pixel by pixel, and a tilt about y
rotates each row separately (`physics.slab_rotation` handles the small angles about x and z). A
window reaches over the slab's edge into a halo of transmissions, which neighbours send
(`ppermute`); the transpose, by JAX, sends the halo's gradient back. To the loss this is a smaller
specimen.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Int

from ...data import Batch
from ...model import Model, probe_positions
from ...parts.indexed import PerShot, PerView, plain, select
from ...parts.slices import Slab, Sliced
from ...parts.specimen import AbstractSpecimen
from ...physics.grids import Grid
from .halo import SLABS, with_halo


class Given(AbstractSpecimen):
    """Slices that were made elsewhere."""

    sliced: Sliced

    def slices(self, grid: Grid):
        return self.sliced


def stacks(model: Model) -> list:
    """Arrays (z, y, x) of the specimen that are split: phase or potential, and absorption.

    Raises ValueError for a specimen without such arrays, and for a periodic one.
    """
    return model.specimen.slab_stacks()


def layout(tree: Any, model: Model):
    """Partition of each array of `tree` (the model, or its optimiser state): rows of the stacks."""
    shape = stacks(model)[0].shape

    def spec(path: Any, leaf: Any):
        before = jnp.ndim(leaf) - 3  # a memory of several steps has them in front
        of_specimen = any(getattr(key, "name", None) == "specimen" for key in path)
        split = of_specimen and before >= 0 and leaf.shape[before:] == shape
        return P(*[None] * (before + 1), SLABS) if split else P()

    return jax.tree_util.tree_map_with_path(spec, tree)


def halo(grid: Grid) -> int:
    """Rows that a device holds of its neighbours on either side.

    Half a window, and the distance that positions may move before shots are assigned again.
    """
    return grid.shape[0] // 2 + max(4, grid.shape[0] // 8)


def fitted(model: Model, slabs: int, tree: Any = None):
    """The model, or a `tree` of what an optimiser remembers of it, with rows of vacuum added to the
    specimen, so that it falls into equal slabs.
    """
    tree = model if tree is None else tree
    if slabs == 1 or not (extra := -stacks(model)[0].shape[1] % slabs):
        return tree
    rows = stacks(model)[0].shape[1]
    total = rows + extra
    before = model.specimen.anchor_row(total) - model.specimen.anchor_row(rows)
    vacuum = model.specimen.vacuum if isinstance(tree, Model) else 0.0

    def padded(leaf: Any, spec: Any):
        split = SLABS in spec
        return (
            jnp.pad(
                leaf,
                [(0, 0)] * (leaf.ndim - 2) + [(before, extra - before), (0, 0)],
                constant_values=vacuum,
            )
            if split
            else leaf
        )

    arrays, rest = eqx.partition(tree, eqx.is_array)
    return eqx.combine(jax.tree.map(padded, arrays, layout(arrays, model)), rest)


def require_equal(model: Model, slabs: int) -> None:
    """Raise ValueError where slabs would be unequal."""
    rows = stacks(model)[0].shape[1]
    if rows % slabs:
        raise ValueError(
            f"{rows} rows of the specimen cannot be split into {slabs} equal slabs; "
            "`slabs.fitted` adds rows of vacuum"
        )


def lent(model: Model) -> int:
    """Rows of the volume that a slab takes from its neighbours on either side for small angles.

    0 without any. Only the shapes of the model count.
    """
    return model.specimen.slab_reach()


def require_lent(model: Model) -> None:
    """Raise ValueError for a view rotated about x or z by more than the halos allow."""
    model.specimen.require_slab_angles()


def slab_part(model: Model, view: Any, slabs: int) -> Model:
    """Part of `model` of one device in one view: its slab, sliced, between its neighbours' halos.

    To be called within `shard_map`; `model` holds the rows of the device.
    """
    grid = model.grid
    model = select(model, PerView, view)
    specimen = model.specimen
    rows = stacks(model)[0].shape[1]
    reach = halo(model.grid)
    number = jax.lax.axis_index(SLABS)

    def neighbours(values: Array, reach: int, outside: Any):
        return with_halo(values, reach, slabs, outside)

    sliced = specimen.slab_slices(grid, Slab(number, slabs, neighbours))
    first = number * rows - reach + specimen.anchor_row(rows) - specimen.anchor_row(slabs * rows)
    origin = jax.tree.map(
        lambda o: o + jnp.stack([first, 0 * first]) * jnp.asarray(grid.pixel, o.dtype),
        sliced.origin,
    )
    whole = with_halo(sliced.transmission, reach, slabs, 1.0)
    return eqx.tree_at(lambda m: m.specimen, model, Given(Sliced(whole, sliced.thickness, origin)))


def within_reach(model: Model, batch: Batch) -> jax.Array:
    """True if the device holds the windows of all its shots, of a model that `slab_part` made."""
    sliced = model.specimen.slices(model.grid)

    def corner(shot: Any):
        scan, own = select((model.scan, sliced), PerShot, shot)
        return own.corner(scan.position(), model.grid)[0][0]

    rows = jax.vmap(corner)(batch.shots)
    inside = (rows >= 0) & (rows <= sliced.transmission.shape[1] - model.grid.shape[0])
    return jnp.all(inside | (batch.weight <= 0))


def homes(model: Model, view: int, slabs: int) -> Int[np.ndarray, " shot"]:
    """The slab of every shot of a view: the one that holds the middle of its window."""
    require_equal(model, slabs)
    specimen = select(model.specimen, PerView, view)
    grid = model.grid
    rows = stacks(model)[0].shape[1]
    pixel = grid.pixel[0]
    beyond = specimen.anchor_row(specimen.shapes(grid).plane[0]) - specimen.anchor_row(rows)
    origin = np.asarray(plain(specimen.slices_origin(grid)))[..., 0] + beyond * pixel
    middle = np.round((probe_positions(model, view)[:, 0] - origin) / pixel)
    return np.clip(middle // (rows // slabs), 0, slabs - 1).astype(int)
