"""Where arrays live: the only file that knows of more than one device.

Shots are split over the devices by hand (`shard_map`): left to itself XLA gathers the whole
batch for every FFT (jax#15680, until 0.12).
"""

import os
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ..data import Batch
from ..model import Model

SHOTS = "shots"


def one_device_per_core() -> int:
    """Make JAX see every CPU core as a device, which is its fastest use; how many there are.

    To be called before JAX computes anything; on GPUs and TPUs it changes nothing.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jax.config.update("jax_num_cpu_devices", cores)
    return cores


def mesh(devices: int | None = None) -> Mesh:
    """A row of `devices` (default: all) over which shots are spread."""
    return jax.make_mesh((devices or jax.device_count(),), (SHOTS,), axis_types=(AxisType.Auto,))


def distribute(loss: Callable[[Model, Batch], jax.Array], mesh: Mesh) -> Callable[[Model, Batch], jax.Array]:
    """The same `loss`, each device working off its share of the batch's shots.

    A loss averages over shots with their weight, so the shares are averaged with theirs; the
    result and its gradient are those of one device. The batch size must be a multiple of the
    number of devices.
    """
    if mesh.size == 1:
        return loss

    def distributed(model, batch):
        if len(batch.shots) % mesh.size:
            raise ValueError(
                f"a batch of {len(batch.shots)} shots cannot be split over {mesh.size} devices; use a multiple"
            )
        arrays, rest = eqx.partition(model, eqx.is_array)

        def share(arrays, batch):
            # varying over devices from here on: the transpose of this cast sums the gradient
            arrays = jax.tree.map(lambda a: jax.lax.pcast(a, SHOTS, to="varying"), arrays)
            weight = jnp.sum(batch.weight)
            value = loss(eqx.combine(arrays, rest), batch)
            return jax.lax.psum(value * weight, SHOTS) / jnp.maximum(jax.lax.psum(weight, SHOTS), 1e-30)

        shares = jax.tree.map(lambda values: P(SHOTS) if jnp.ndim(values) else P(), batch)
        return jax.shard_map(share, mesh=mesh, in_specs=(P(), shares), out_specs=P())(arrays, batch)

    return distributed


def share(function: Callable[[Model, Any], jax.Array], mesh: Mesh) -> Callable[[Model, Any], jax.Array]:
    """The same `function(model, shots)`, whose answer has one row for each shot, each device working off its shots."""
    if mesh.size == 1:
        return function

    @eqx.filter_jit
    def shared(model, shots):
        arrays, rest = eqx.partition(model, eqx.is_array)
        padded = jnp.pad(shots, (0, -len(shots) % mesh.size), mode="edge")

        def own(arrays, shots):
            return function(eqx.combine(arrays, rest), shots)

        # what loops carry from a constant start varies over devices only later
        mapped = jax.shard_map(own, mesh=mesh, in_specs=(P(), P(SHOTS)), out_specs=P(SHOTS), check_vma=False)
        return mapped(arrays, padded)[: len(shots)]

    return shared


def replicate(tree, mesh: Mesh):
    """The tree with its arrays on every device of `mesh`, as steps with a distributed loss return them."""
    arrays, rest = eqx.partition(tree, eqx.is_array)
    return eqx.combine(jax.device_put(arrays, NamedSharding(mesh, P())), rest)


def even(batch: Batch, mesh: Mesh) -> Batch:
    """The batch, padded with weight 0 to a multiple of the number of devices."""
    extra = -len(batch.shots) % mesh.size
    if not extra:
        return batch

    def repeat_last(values):
        return np.concatenate([values, np.repeat(values[-1:], extra, 0)])

    weight = np.concatenate([batch.weight, np.zeros(extra, np.float32)])
    return Batch(batch.view, repeat_last(batch.shots), repeat_last(batch.counts), weight)
