"""Memory and communication of a step on a mesh, read from the compiled program in advance."""

import math
import re
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ..data import Batch
from ..inverse.memory import Loss
from ..model import Model
from .sharding import SHOTS, distribute
from .slabs import layout as slabs

KINDS = "all-reduce", "collective-permute", "all-gather", "all-to-all", "reduce-scatter"
WIDTHS = {
    "pred": 1,
    "s8": 1,
    "u8": 1,
    "s16": 2,
    "u16": 2,
    "s32": 4,
    "u32": 4,
    "f32": 4,
    "s64": 8,
    "u64": 8,
    "f64": 8,
}
WIDTHS |= {"c64": 8, "c128": 16, "f16": 2, "bf16": 2}


class MemoryPlan(NamedTuple):
    """Memory and traffic of one device in a step [bytes]."""

    groups: int
    slabs: int
    rows: int  # of the specimen
    halo: int  # rows on either side of a slab
    turned: int  # rows of the volume on either side, for small angles about x and z
    specimen: int  # its stacks
    others: int  # the rest of the model
    state: int  # what the optimiser remembers
    batch: int
    gradient: int  # with its waves and transmissions
    sent: dict[str, int]  # by each kind of collective

    @property
    def total(self) -> int:
        """Bytes of one device: model and state, with the gradient."""
        return self.specimen + self.others + self.state + self.batch + self.gradient

    @property
    def halo_share(self) -> float:
        """Fraction of a device's transmissions that its neighbours hold as well."""
        return 0.0 if self.slabs == 1 else 2 * self.halo / (self.rows // self.slabs + 2 * self.halo)

    def table(self) -> dict[str, str]:
        """The plan as people read it."""
        own = self.rows // self.slabs
        slab = f"{own} of {self.rows} rows" if self.slabs > 1 else "whole"
        rows = {
            "devices": f"{self.groups} × {self.slabs} (groups of shots × slabs of the specimen)",
            "on each device": f"specimen {slab} {_mb(self.specimen)}, "
            f"its optimiser {_mb(self.state)}, its shots {_mb(self.batch)}, all else of the model "
            f"{_mb(self.others)}",
            "memory of a step": f"{_mb(self.total)} on each device, "
            f"{_mb(self.gradient)} of it the gradient's",
            "sent in a step": ", ".join(
                f"{_mb(size)} by {kind}" for kind, size in self.sent.items()
            )
            or "nothing",
        }
        if self.slabs > 1:
            rows["halo"] = (
                f"{self.halo} rows on either side, {100 * self.halo_share:.3g} % of a device's "
                "transmissions"
            )
            rows["halo"] += (
                f"; {self.turned} rows of the volume for small angles" if self.turned else ""
            )
        return rows


def plan(loss: Loss, model: Model, state: Any, batch: Batch, mesh: Mesh) -> MemoryPlan:
    """Plan of a step of `loss` on `mesh`, from the shapes of model, state and batch.

    Collectives are those of the loss and its gradient; penalties and projections add further ones.
    """
    parts = mesh.shape.get(slabs.SLABS, 1)
    shape = slabs.stacks(model)[0].shape if parts > 1 else None
    stacked = sum(map(_bytes, slabs.stacks(model))) if parts > 1 else size_of(model.specimen)
    if parts > 1:
        slabs.require_equal(model, parts)
    program = compiled(loss, model, batch, mesh)
    memory = program.memory_analysis()
    big = sum(_bytes(leaf) for leaf in _arrays(state) if parts > 1 and leaf.shape[-3:] == shape)
    return MemoryPlan(
        mesh.shape[SHOTS],
        parts,
        shape[1] if shape else 0,
        slabs.halo(model.grid) if parts > 1 else 0,
        slabs.lent(model) if parts > 1 else 0,
        stacked // parts,
        size_of(model) - stacked,
        size_of(state) - big + big // parts,
        size_of(batch) // mesh.size,
        0 if memory is None else memory.temp_size_in_bytes + memory.output_size_in_bytes,
        traffic(program.as_text() or ""),
    )


def compiled(loss: Loss, model: Model, batch: Batch, mesh: Mesh):
    """Gradient of `loss` on `mesh`, compiled from shapes, each array with `place` as sharding."""
    (params, others), rest = _split(model)
    parts = mesh.shape.get(slabs.SLABS, 1)

    def value(params: Any, others: Any, batch: Batch):
        return distribute(loss, mesh)(eqx.combine(params, others, rest), batch)

    def shapes(tree: Any):
        specs = slabs.layout(tree, model) if parts > 1 else jax.tree.map(lambda _: P(), tree)
        return jax.tree.map(lambda leaf, spec: _shape(leaf, NamedSharding(mesh, spec)), tree, specs)

    shots = NamedSharding(mesh, P(mesh.axis_names))
    batch = jax.tree.map(
        lambda leaf: _shape(leaf, shots if np.ndim(leaf) else NamedSharding(mesh, P())), batch
    )
    return jax.jit(jax.value_and_grad(value)).lower(shapes(params), shapes(others), batch).compile()


def traffic(text: str) -> dict[str, int]:
    """Bytes that reach a device in one run of a compiled program, by kind of collective.

    A loop counts as one iteration.
    """
    found: dict[str, int] = dict.fromkeys(KINDS, 0)
    for line in text.splitlines():
        match = re.search(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(", line)
        if match is None or re.search(
            r"replica_groups=(\{\{\d+\}|\[\d+,1\])", line
        ):  # a device with itself
            continue
        result, kind, begun = match.groups()
        shapes = re.findall(r"(\w+)\[([\d,]*)\]", result)
        sizes = [
            WIDTHS[of] * math.prod(int(n) for n in dims.split(",") if n) for of, dims in shapes
        ]
        # operands and results are both in memory
        both = begun and kind in (
            "collective-permute",
            "all-gather",
        )
        found[kind] += max(sizes) if both else sum(sizes)
    return {kind: size for kind, size in found.items() if size}


def _split(model: Model):
    arrays, rest = eqx.partition(
        model, lambda leaf: hasattr(leaf, "shape") and hasattr(leaf, "dtype")
    )
    inexact = jax.tree.map(lambda leaf: np.issubdtype(leaf.dtype, np.inexact), arrays)
    return eqx.partition(arrays, inexact), rest


def _shape(leaf, sharding) -> jax.ShapeDtypeStruct:
    leaf = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _arrays(tree) -> list:
    return [
        leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "shape") and hasattr(leaf, "dtype")
    ]


def _bytes(leaf) -> int:
    return math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize


def size_of(tree: Any) -> int:
    """Bytes of all arrays of a tree, or of what has only shapes."""
    return sum(map(_bytes, _arrays(tree)))


def _mb(size: int) -> str:
    return f"{size / 1e6:.4g} MB"
