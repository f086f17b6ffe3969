"""A specimen too large for one device, in slabs of rows along y: what one device holds of it, and which shots it sees.

Every slice is made of the slab's own rows alone: matter acts pixel by pixel, and a tilt about y turns each row for
itself (`turned` does the small angles about x and z). A window reaches over the slab's edge into a halo of transmissions, which neighbours send (`ppermute`); the
transpose, by JAX, sends the halo's gradient back. The loss meets a specimen that is merely smaller.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Int

from ..data import Batch
from ..inverse.fields import STACKS
from ..model import Model, positions
from ..parts.indexed import PerShot, PerView, plain, select
from ..parts.specimen import AbstractSpecimen, Sliced
from ..parts.volume import Volume
from ..physics import volumes
from ..physics.grids import Grid
from . import turned
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
    specimen = model.specimen
    if type(specimen) not in STACKS:
        known = ", ".join(kind.__name__ for kind in STACKS)
        raise ValueError(f"a specimen of type {type(specimen).__name__} cannot be split into slabs; those are {known}")
    if getattr(specimen, "periodic", False):
        raise ValueError("a periodic specimen cannot be split into slabs; give it a margin instead, or use one slab")
    return [found for name in STACKS[type(specimen)].values() if (found := getattr(specimen, name)) is not None]


def layout(tree, model: Model):
    """How each array of `tree` (the model, or what an optimiser remembers of it) is split: rows of the stacks, no other."""
    shape = stacks(model)[0].shape

    def spec(path, leaf):
        before = jnp.ndim(leaf) - 3  # a memory of several steps has them in front
        of_specimen = any(getattr(key, "name", None) == "specimen" for key in path)
        split = of_specimen and before >= 0 and leaf.shape[before:] == shape
        return P(*[None] * (before + 1), SLABS) if split else P()

    return jax.tree_util.tree_map_with_path(spec, tree)


def halo(grid: Grid) -> int:
    """Rows that a device holds of its neighbours on either side: half a window, and as far as positions may move
    before their shots are arranged anew."""
    return grid.shape[0] // 2 + max(4, grid.shape[0] // 8)


def fitted(model: Model, slabs: int, tree=None):
    """The model, or a `tree` of what an optimiser remembers of it, with rows of vacuum added to the specimen, so that it
    falls into equal slabs."""
    tree = model if tree is None else tree
    if slabs == 1 or not (extra := -stacks(model)[0].shape[1] % slabs):
        return tree
    rows = stacks(model)[0].shape[1]
    total = rows + extra
    before = total // 2 - rows // 2 if isinstance(model.specimen, Volume) else 0  # its middle row lies on the axis

    def padded(leaf, spec):
        split = SLABS in spec
        return jnp.pad(leaf, [(0, 0)] * (leaf.ndim - 2) + [(before, extra - before), (0, 0)]) if split else leaf

    arrays, rest = eqx.partition(tree, eqx.is_array)
    return eqx.combine(jax.tree.map(padded, arrays, layout(arrays, model)), rest)


def require_equal(model: Model, slabs: int) -> None:
    """Raises ValueError where slabs would be unequal."""
    rows = stacks(model)[0].shape[1]
    if rows % slabs:
        raise ValueError(
            f"{rows} rows of the specimen cannot be split into {slabs} equal slabs; `slabs.fitted` adds rows of vacuum"
        )


def lent(model: Model) -> int:
    """Rows of the volume that a slab takes of its neighbours on either side for small angles; 0 without any.

    Of the model only shapes count.
    """
    specimen = eqx.filter_eval_shape(select, model.specimen, PerView, 0)
    if not isinstance(specimen, Volume) or specimen.angles is None:
        return 0
    return turned.reach(specimen, specimen.potential.shape[1])


def require_lent(model: Model) -> None:
    """Raises ValueError where a view is turned about x or z by more than the halos are made for."""
    specimen = model.specimen
    if not isinstance(specimen, Volume) or specimen.angles is None:
        return
    angles = np.abs(np.reshape(np.asarray(plain(specimen.angles)), (-1, 2)))
    limits = np.array(turned.largest(select(specimen, PerView, 0)))
    view, axis = np.unravel_index(int(np.argmax(angles / limits)), angles.shape)
    if not angles[view, axis] <= limits[axis]:
        raise ValueError(
            f"view {view} is turned about {'xz'[axis]} by {np.rad2deg(angles[view, axis]):.3g}°, halos of slabs are made "
            f"for {np.rad2deg(limits[axis]):.3g}°; use one slab (run.slabs = 1), or leave angles out (volume.angles = false)"
        )


def own_part(model: Model, view, slabs: int) -> Model:
    """What one device sees of `model` in one view: its slab, sliced, between the halos of its neighbours.

    To be called within `shard_map`; `model` holds the device's own rows.
    """
    model, grid = select(model, PerView, view), model.grid
    number, rows, reach = jax.lax.axis_index(SLABS), stacks(model)[0].shape[1], halo(model.grid)
    specimen = _between_slabs(model.specimen, number, slabs)
    if isinstance(specimen, Volume) and specimen.angles is not None:
        field = shape[0] if (shape := model.specimen.shape) else slabs * rows  # pyright: ignore[reportAttributeAccessIssue]
        sliced = turned.slices(specimen, grid, number, slabs, field)
    else:
        sliced = specimen.slices(grid)
    first = number * rows - reach
    if isinstance(specimen, Volume):
        first = first + rows // 2 - slabs * rows // 2
    origin = jax.tree.map(lambda o: o + jnp.stack([first, 0 * first]) * jnp.asarray(grid.pixel, o.dtype), sliced.origin)
    whole = with_halo(sliced.transmission, reach, slabs, 1.0)
    return eqx.tree_at(lambda m: m.specimen, model, Given(Sliced(whole, sliced.thickness, origin)))


def _between_slabs(specimen: AbstractSpecimen, number, slabs: int) -> AbstractSpecimen:
    """The specimen of one slab, which ends only where the whole one does: a volume tapers at its own faces."""
    if not isinstance(specimen, Volume):
        return specimen
    _, rows, columns = specimen.potential.shape
    z, y, x = specimen.voxel
    profile = volumes.tapered(
        jnp.ones((1, slabs * rows, 1), specimen.potential.dtype), (math.inf, y, math.inf), specimen.taper
    )
    own = jax.lax.dynamic_slice_in_dim(profile, number * rows, rows, 1)

    def tapered(stack):
        return None if stack is None else own * volumes.tapered(stack, (z, math.inf, x), specimen.taper)

    return Volume(
        tapered(specimen.potential),
        specimen.voxel,
        specimen.tilt,  # pyright: ignore[reportArgumentType]
        specimen.n_slices,
        tapered(specimen.absorptive),
        specimen.angles,
        shift=specimen.shift,
        depth=specimen.depth,
        shape=(rows, columns if specimen.shape is None else specimen.shape[1]),
        taper=0.0,
        kernel=specimen.kernel,
    )


def within_reach(model: Model, batch: Batch) -> jax.Array:
    """Whether the device holds the windows of all its shots, of a model that `own_part` made."""
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
    origin, pixel = np.asarray(plain(specimen.origin))[..., 0], model.grid.pixel[0]
    rows = stacks(model)[0].shape[1]
    if isinstance(specimen, Volume):  # its slices may have other rows than its slabs
        origin = origin + (specimen.frame.rows.middle - rows // 2) * pixel
    middle = np.round((positions(model, view)[:, 0] - origin) / pixel)
    return np.clip(middle // (rows // slabs), 0, slabs - 1).astype(int)
