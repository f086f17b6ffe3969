"""Sharding of arrays, and computation of a step on many devices.

Shots are split over the devices explicitly (`shard_map`): otherwise XLA gathers the complete batch
for every FFT (jax#15680, until 0.12).
"""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ..data import Batch
from ..kernels.selection import cores
from ..model import Model
from .reduce import psum_packed
from .slabs.layout import SLABS, layout, require_equal, slab_part, stacks, within_reach

SHOTS = "shots"


def one_device_per_core() -> int:
    """Make JAX use every CPU core as a device, which is its fastest use; return their number.

    To be called before JAX computes anything; without effect on GPUs and TPUs.
    """
    jax.config.update("jax_num_cpu_devices", cores())
    return cores()


def mesh(devices: int | None = None, slabs: int = 1) -> Mesh:
    """Mesh of `devices` (default: all) for shots, with rows of the specimen in groups of `slabs`.

    Views are no separate axis: a batch holds shots of one view, whose volume is rotated one time,
    and the next batch is that of another view. Groups of shots divide the work as groups of views
    would, and every group rotates the same slab.
    """
    available = jax.device_count()
    devices = devices or available
    if devices > available:
        raise ValueError(
            f"{devices} devices are asked for, and {available} are available; set run.devices to "
            "at most that, or leave it open"
        )
    if devices % slabs:
        raise ValueError(
            f"{devices} devices do not fall into groups of {slabs} slabs; give a divisor of "
            f"{devices}"
        )
    shape = {SHOTS: devices // slabs} | ({SLABS: slabs} if slabs > 1 else {})
    made = jax.make_mesh(
        tuple(shape.values()), tuple(shape), axis_types=(AxisType.Auto,) * len(shape)
    )
    require_in_turn([device.process_index for device in made.devices.flat], jax.process_count())
    return made


def on_the_host():
    """Context in which new arrays are in the memory of the host, if JAX can compute on it."""
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX_PLATFORMS may leave the CPU out
        return contextlib.nullcontext()


def require_in_turn(owners: list[int], processes: int) -> None:
    """Raise ValueError unless the devices of a mesh belong to all processes in order.

    Each has the same number, as every process reads its part of a batch, the rank-th.
    """
    share = len(owners) // processes
    if owners != [rank for rank in range(processes) for _ in range(share)]:
        raise ValueError(
            f"the devices of this mesh belong to the processes {owners} in this order; expected "
            f"the same number of each of {processes}, one process after the other: use all "
            "devices (run.devices), as many in every process"
        )


def distribute(
    loss: Callable[[Model, Batch], jax.Array], mesh: Mesh
) -> Callable[[Model, Batch], jax.Array]:
    """Return the same `loss`, computed by each device on its share of the batch's shots.

    A loss is a weighted mean over shots, so the shares are averaged with their weights; the result
    and its gradient are those of one device. The batch size must be a multiple of the number of
    devices. On a mesh with slabs the model is placed by `place_on_mesh` and batches come from
    `slabs.batching.slab_batches`; the loss is NaN if a window has left its slab and the halo. First
    derivatives by the model only, in reverse mode: each device computes its part, and all are
    summed together.
    """
    if mesh.size == 1:
        return loss

    def distributed(model: Model, batch: Batch):
        _require_shares(batch, mesh)
        return _mean(model, batch, loss, mesh)

    return distributed


@eqx.filter_custom_vjp
def _mean(model, batch, loss, mesh):
    return _with_gradient(jax.tree.map(lambda _: False, model), model, batch, loss, mesh)[0]


@_mean.def_fwd
def _mean_forward(perturbed, model, batch, loss, mesh):
    return _with_gradient(perturbed, model, batch, loss, mesh)


@_mean.def_bwd
def _mean_backward(gradient, cotangent, perturbed, model, batch, loss, mesh):
    return jax.tree.map(lambda g: g * cotangent, gradient)


def _with_gradient(wanted, model, batch, loss, mesh):
    """The mean over all shots and, summed over the devices with it, its gradient by the `wanted`
    arrays of the model.
    """
    parts_wanted = eqx.filter(_parts(model, mesh), wanted)

    def share(model: Model, batch: Batch):
        moving, fixed = eqx.partition(model, wanted)
        weight = jnp.sum(batch.weight)

        def of_own_shots(moving: Any):
            return weight * _of_own(loss, eqx.combine(moving, fixed), batch, mesh)

        found = *jax.value_and_grad(of_own_shots)(moving), weight
        return psum_packed(found, (P(), parts_wanted, P()), mesh.axis_names)

    value, gradient, weight = _on_shares(share, model, batch, mesh, (P(), parts_wanted, P()))
    per_shot = 1 / jnp.maximum(weight, 1e-30).astype(value.dtype)
    return value * per_shot, jax.tree.map(lambda g: g * per_shot, gradient)


def over_shots(
    function: Callable[[Model, Batch], Any], mesh: Mesh
) -> Callable[[Model, Batch], Any]:
    """The same `function`, a tree of sums over a batch's shots, each device working off its share,
    as in `distribute`.
    """
    if mesh.size == 1:
        return function

    def together(model: Model, batch: Batch):
        _require_shares(batch, mesh)

        def share(model: Model, batch: Batch):
            return jax.lax.psum(_of_own(function, model, batch, mesh), mesh.axis_names)

        return _on_shares(share, model, batch, mesh, P())

    return together


def _on_shares(function, model: Model, batch: Batch, mesh: Mesh, made):
    """Call `function` on every device with its part of the model and its share of the batch.

    `made` is the sharding of the results.
    """
    arrays, rest = eqx.partition(model, eqx.is_array)
    parts = _parts(model, mesh)

    def own(arrays: Any, batch: Batch):
        arrays = jax.tree.map(lambda a, spec: _varying(a, spec, mesh.axis_names), arrays, parts)
        return function(eqx.combine(arrays, rest), batch)

    return jax.shard_map(own, mesh=mesh, in_specs=(parts, _shares(batch, mesh)), out_specs=made)(
        arrays, batch
    )


def _require_shares(batch: Batch, mesh: Mesh) -> None:
    if len(batch.shots) % mesh.size:
        raise ValueError(
            f"a batch of {len(batch.shots)} shots cannot be split over {mesh.size} devices; use a "
            "multiple"
        )


def _parts(model: Model, mesh: Mesh):
    """Sharding of the arrays of a model."""
    arrays = eqx.filter(model, eqx.is_array)
    return (
        jax.tree.map(lambda _: P(), arrays)
        if mesh.shape.get(SLABS, 1) == 1
        else layout(arrays, model)
    )


def _shares(batch: Batch, mesh: Mesh):
    """Sharding of a batch."""
    return jax.tree.map(lambda values: P(mesh.axis_names) if jnp.ndim(values) else P(), batch)


def _of_own(function, model: Model, batch: Batch, mesh: Mesh):
    """`function` of what a device holds of the model; NaN where its shots see more."""
    slabs = mesh.shape.get(SLABS, 1)
    if slabs == 1:
        return function(model, batch)
    own = slab_part(model, batch.view, slabs)
    within = within_reach(own, batch)
    return jax.tree.map(lambda value: jnp.where(within, value, jnp.nan), function(own, batch))


def _varying(array, spec: P, axes):
    """The array as one that differs from device to device along all `axes`, along those of `spec`
    as it does already.
    """
    return jax.lax.pcast(array, tuple(axis for axis in axes if axis not in spec), to="varying")


def place_on_mesh(tree: Any, mesh: Mesh, model: Model | None = None):
    """Place a model (or its optimiser state) on `mesh` with the sharding that a step expects.

    A specimen's rows are in slabs if the mesh has some; all other arrays are on every device.
    """
    if SLABS not in mesh.shape:
        return replicate(tree, mesh)
    model = cast(Model, tree if model is None else model)
    require_equal(model, mesh.shape[SLABS])
    arrays, rest = eqx.partition(tree, eqx.is_array)
    where = jax.tree.map(lambda spec: NamedSharding(mesh, spec), layout(arrays, model))
    return eqx.combine(jax.tree.map(_put, arrays, where), rest)


def place_on_new_mesh(tree: Any, mesh: Mesh, model: Model):
    """As `place_on_mesh`, of what lay in other slabs: on every device where its rows do not fall
    into those of `mesh`.
    """
    slabs = mesh.shape.get(SLABS, 1)
    return (
        place_on_mesh(tree, mesh, model)
        if slabs == 1 or not stacks(model)[0].shape[1] % slabs
        else replicate(tree, mesh)
    )


def keep_sharding(project: Callable[[Model], Model], mesh: Mesh) -> Callable[[Model], Model]:
    """The same `project` of a compiled step, whose model stays where `place_on_mesh` puts it."""
    if SLABS not in mesh.shape:
        return project

    def kept(model: Model):
        arrays, rest = eqx.partition(project(model), eqx.is_array)
        where = jax.tree.map(lambda spec: NamedSharding(mesh, spec), layout(arrays, model))
        return eqx.combine(jax.lax.with_sharding_constraint(arrays, where), rest)

    return kept


def share(
    function: Callable[[Model, Any], jax.Array], mesh: Mesh
) -> Callable[[Model, Any], jax.Array]:
    """The same `function(model, shots)`, whose answer has one row for each shot, each device
    working off its shots.
    """
    if mesh.size == 1:
        return function

    @eqx.filter_jit
    def shared(model: Model, shots: Any):
        arrays, rest = eqx.partition(model, eqx.is_array)
        padded = jnp.pad(shots, (0, -len(shots) % mesh.size), mode="edge")

        def own(arrays: Any, shots: Any):
            return function(eqx.combine(arrays, rest), shots)

        # what loops carry from a constant start varies over devices only later
        mapped = jax.shard_map(
            own, mesh=mesh, in_specs=(P(), P(SHOTS)), out_specs=P(SHOTS), check_vma=False
        )
        return mapped(arrays, padded)[: len(shots)]

    return shared


def replicate(tree: Any, mesh: Mesh):
    """The tree with its arrays on every device of `mesh`, as steps with a distributed loss return
    them.
    """
    arrays, rest = eqx.partition(tree, eqx.is_array)
    return eqx.combine(
        jax.tree.map(lambda leaf: _put(leaf, NamedSharding(mesh, P())), arrays), rest
    )


def _put(array, where: NamedSharding) -> jax.Array:
    """Array with the given sharding; one complete in every process is not communicated."""
    known = jax.process_count() == 1 or (
        isinstance(array, jax.Array) and not array.is_fully_addressable
    )
    if known or jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        return jax.device_put(array, where)
    # `device_put` compares all of it between processes, and corrupts arrays of processes with one
    # device (jax 0.10.2)
    own = np.asarray(array)
    return jax.make_array_from_callback(own.shape, where, lambda index: own[index])


class Copied(NamedTuple):
    """Array on the host: the parts on devices of this process, and their previous sharding."""

    parts: dict[str, np.ndarray]  # by their place
    shape: tuple[int, ...]
    sharding: jax.sharding.Sharding


def snapshot(tree: Any):
    """Copy the arrays of a tree to the host, unaffected by donation; each process its parts."""

    def copy(leaf: Any):
        if not isinstance(leaf, jax.Array):
            return leaf.copy() if isinstance(leaf, np.ndarray) else leaf
        # of those alike, one
        parts = {str(shard.index): shard for shard in leaf.addressable_shards}
        return Copied(
            {at: np.array(shard.data) for at, shard in parts.items()}, leaf.shape, leaf.sharding
        )

    return jax.tree.map(copy, tree)


def restore(tree: Any):
    """Return the arrays copied by `snapshot` as new ones with the previous sharding."""

    def back(leaf: Any):
        if not isinstance(leaf, Copied):
            return leaf.copy() if isinstance(leaf, np.ndarray) else leaf
        return jax.make_array_from_callback(
            leaf.shape, leaf.sharding, lambda index: leaf.parts[str(index)]
        )

    return jax.tree.map(back, tree, is_leaf=lambda node: isinstance(node, Copied))


def even(batch: Batch, mesh: Mesh) -> Batch:
    """The batch, or this process's part of it, padded with weight 0 to a multiple of the number of
    its devices.
    """
    extra = -len(batch.shots) % mesh.local_mesh.size
    if not extra:
        return batch

    def repeat_last(values: Any):
        return np.concatenate([values, np.repeat(values[-1:], extra, 0)])

    weight = np.concatenate([batch.weight, np.zeros(extra, np.float32)])
    return Batch(
        batch.view, repeat_last(batch.shots), jax.tree.map(repeat_last, batch.counts), weight
    )
