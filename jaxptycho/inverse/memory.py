"""Memory of a step: number of shots per micro-batch, and the waves stored for the gradient.

The bytes of a plan are those that the compiler allocates. A plan is compiled to obtain them only
if its estimate is near the budget.
"""

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from ..data import Batch
from ..model import Model
from ..parts.indexed import PerShot, select
from ..physics import checkpointed, waves
from ..physics.types import PyTree

Loss = Callable[[Model, Batch], jax.Array]
Multislice = Callable[..., waves.Exit]

# least and largest size of the waves of a chunk: the second-level cache of a CPU, in which four
# shots are efficient, or the cache of a GPU
CHUNK_BYTES = {
    "cpu": (2**19, 2**21),
    "gpu": (48 * 2**20, 48 * 2**20),
    "tpu": (16 * 2**20, 16 * 2**20),
}
CONTROL_GROUP = Path("/sys/fs/cgroup/memory.max")  # limit of a container or a batch system


class MicrobatchPlan(NamedTuple):
    """Plan to process the shots of a batch: `micro` at a time, by `multislice`."""

    micro: int
    multislice: Multislice = waves.multislice


def plans(
    model: Model, shots: int, micro: int | None = None, multislice: Multislice | None = None
) -> list[MicrobatchPlan]:
    """Plans to process `shots`, the fastest first.

    Micro-batches as large as fit the cache come first, then smaller ones, then multislices that
    store fewer waves for the gradient. `micro` and `multislice` fix these choices.
    """
    if multislice is checkpointed.multislice_reversible:
        require_lossless(model)
    most = min(shots, _cached_shots(model))
    micros = [micro] if micro else [most >> n for n in range(most.bit_length())]
    first, *others = (
        [multislice] if multislice else [waves.multislice, checkpointed.multislice_sqrt]
    )
    return [MicrobatchPlan(m, first) for m in micros] + [
        MicrobatchPlan(micros[-1], other) for other in others
    ]


def fastest(
    by: Callable[[MicrobatchPlan], Loss],
    model: Model,
    batch: Batch,
    choice: Sequence[MicrobatchPlan],
    budget: float | None,
) -> MicrobatchPlan:
    """First plan of `choice` whose loss `by(plan)` and gradient fit `budget` [bytes].

    Model and batch are not counted. The default budget is half of the device's memory; with it
    the last plan, which requires the least memory, is returned in any case.
    """
    most = _half_the_device() if budget is None else budget
    if 4 * _roughly(model, choice[0]) < most:
        return choice[0]
    *others, leanest = choice
    size = 0
    for plan in others if budget is None else choice:
        size = needed(by(plan), model, batch)
        if size <= most:
            return plan
    if budget is None:
        return leanest
    raise ValueError(
        f"the gradient takes {size / 1e6:.4g} MB with {leanest.micro} shots at a time and "
        f"{leanest.multislice.__name__}, the budget is {budget / 1e6:.4g} MB; give more, or try "
        "checkpointed.multislice_reversible or a smaller specimen"
    )


def require_lossless(model: Model) -> None:
    """Raise ValueError for a propagator that loses frequencies: its waves cannot be traced back."""
    propagator = select(model.propagator, PerShot, 0)
    with jax.ensure_compile_time_eval():
        still = jax.tree.map(
            lambda a: jnp.zeros(a.shape, a.dtype) if eqx.is_array(a) else a, propagator
        )
        passed = float(jnp.min(jnp.abs(still.kernel(model.grid, 10.0))))
    if passed < 1 - 1e-3:
        raise ValueError(
            "multislice_reversible traces waves back, but a propagator of type "
            f"{type(propagator).__name__} loses frequencies of this grid for good (|P| falls to "
            f"{passed:.2g}); leave out its band limit, use a coarser pixel, or use "
            "checkpointed.multislice_sqrt"
        )


def needed(loss: Loss, model: Model, batch: Batch) -> int:
    """Bytes of a loss and its gradient on a device, without model and batch, by the compiler.

    No value is computed; only shapes and types of arrays matter. A loss that is not a scalar is
    counted without gradient. 0 if the compiler does not report its memory.
    """
    arrays, rest = eqx.partition(
        (model, batch), lambda leaf: hasattr(leaf, "shape") and hasattr(leaf, "dtype")
    )

    def value(params: PyTree, others: PyTree, batch: PyTree) -> jax.Array:
        return loss(eqx.combine(params, others), batch)

    def program(arrays: PyTree) -> Any:
        model, batch = eqx.combine(arrays, rest)
        params, others = eqx.partition(model, eqx.is_inexact_array)
        scalar = jax.eval_shape(lambda p: value(p, others, batch), params).ndim == 0
        return (jax.value_and_grad(value) if scalar else value)(params, others, batch)

    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arrays)
    figure = jax.jit(program).lower(shapes).compile().memory_analysis()
    return 0 if figure is None else figure.temp_size_in_bytes + figure.output_size_in_bytes


def device_memory() -> int | None:
    """Bytes of one device, those of a CPU shared among its devices; None if unknown."""
    if jax.default_backend() != "cpu":
        return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not available on Windows
        return None
    granted = CONTROL_GROUP.read_text().strip() if CONTROL_GROUP.exists() else ""
    return min(whole, int(granted) if granted.isdigit() else whole) // jax.local_device_count()


def _half_the_device() -> float:
    memory = device_memory()
    return math.inf if memory is None else memory / 2


def _roughly(model: Model, plan: MicrobatchPlan) -> int:
    """Bytes of the waves, windows and gradient of a plan, accurate to a factor of two."""
    spectrum = _spectrum(model)
    slices = _slices(model)
    modes = spectrum.shape[0]
    pixels = math.prod(spectrum.shape[1:])
    planes = plan.micro * (slices.shape[0] * (modes + 4) + 10 * modes)
    return spectrum.dtype.itemsize * (planes * pixels + 2 * slices.size)


def _cached_shots(model: Model) -> int:
    """Number of shots whose waves fit the cache; a CPU's also holds those entering each slice."""
    spectrum = _spectrum(model)
    size = math.prod(spectrum.shape) * spectrum.dtype.itemsize
    platform = jax.default_backend()
    if platform == "cpu":
        size *= _slices(model).shape[0]
    least, most = CHUNK_BYTES.get(platform, CHUNK_BYTES["cpu"])
    return max(1, least // size, min(4, most // size))


def _slices(model: Model) -> jax.ShapeDtypeStruct:
    return eqx.filter_eval_shape(model.specimen.slices, model.grid).transmission


def _spectrum(model: Model) -> jax.ShapeDtypeStruct:
    first = select(model, PerShot, 0)
    return jax.eval_shape(lambda: first.probe.spectrum(model.grid))
