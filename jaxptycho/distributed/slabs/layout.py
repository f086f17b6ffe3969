"""A specimen too large for one device, in slabs of rows along y: what one device holds of it, and
which shots it sees.

Every slice is made of the slab's own rows alone: matter acts pixel by pixel, and a tilt about y
turns each row for itself (`physics.slab_rotation` does the small angles about x and z). A window
reaches over the slab's edge into a halo of transmissions, which neighbours send (`ppermute`); the
transpose, by JAX, sends the halo's gradient back. The loss meets a specimen that is merely smaller.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Int

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

    def slices(self, grid):
        return self.sliced


def stacks(model: Model) -> list:
    """The arrays (z, y, x) of the specimen that are split: phase or potential, and absorption.

    Raises ValueError for a specimen that has none, and for a periodic one.
    """
    return model.specimen.slab_stacks()


def layout(tree, model: Model):
    """How each array of `tree` (the model, or what an optimiser remembers of it) is split: rows of
    the stacks, no other.
    """
    shape = stacks(model)[0].shape

    def spec(path, leaf):
        before = jnp.ndim(leaf) - 3  # a memory of several steps has them in front
        of_specimen = any(getattr(key, "name", None) == "specimen" for key in path)
        split = of_specimen and before >= 0 and leaf.shape[before:] == shape
        return P(*[None] * (before + 1), SLABS) if split else P()

    return jax.tree_util.tree_map_with_path(spec, tree)


def halo(grid: Grid) -> int:
    """Rows that a device holds of its neighbours on either side: half a window, and as far as
    positions may move before their shots are arranged anew.
    """
    return grid.shape[0] // 2 + max(4, grid.shape[0] // 8)


def fitted(model: Model, slabs: int, tree=None):
    """The model, or a `tree` of what an optimiser remembers of it, with rows of vacuum added to the
    specimen, so that it falls into equal slabs.
    """
    tree = model if tree is None else tree
    if slabs == 1 or not (extra := -stacks(model)[0].shape[1] % slabs):
        return tree
    rows = stacks(model)[0].shape[1]
    total = rows + extra
    before = model.specimen.anchor_row(total) - model.specimen.anchor_row(rows)

    def padded(leaf, spec):
        split = SLABS in spec
        return (
            jnp.pad(leaf, [(0, 0)] * (leaf.ndim - 2) + [(before, extra - before), (0, 0)])
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
    """Rows of the volume that a slab takes of its neighbours on either side for small angles; 0
    without any.

    Of the model only shapes count.
    """
    return model.specimen.slab_reach()


def require_lent(model: Model) -> None:
    """Raise ValueError where a view is turned about x or z by more than the halos are made for."""
    model.specimen.require_slab_angles()


def own_part(model: Model, view, slabs: int) -> Model:
    """What one device sees of `model` in one view: its slab, sliced, between the halos of its
    neighbours.

    To be called within `shard_map`; `model` holds the device's own rows.
    """
    model, grid = select(model, PerView, view), model.grid
    specimen = model.specimen
    rows = stacks(model)[0].shape[1]
    reach = halo(model.grid)
    number = jax.lax.axis_index(SLABS)

    def neighbours(values, reach, outside):
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
    """True if the device holds the windows of all its shots, of a model that `own_part` made."""
    sliced = model.specimen.slices(model.grid)

    def corner(shot):
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
