"""Descent on a model: a public, pure step and the short loop around it.

Any optax transformation is a solver. It is called with the model, the batch and the loss as
extra arguments, so those that need more than a gradient (`pie`, L-BFGS) are transformations
like the others.
"""

import contextlib
import gc
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Mapping
from difflib import get_close_matches
from functools import partial
from itertools import groupby
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from ..data import Batch, Rows, materialize, stacked
from ..model import Model, require_alive, require_inside
from ..parts.indexed import PerView, axis_size, mask_unseen_updates
from ..physics.types import PyTree
from .alike import made_once
from .solvers.parameter_scaling import child, restrict_line_search, scale_parameters

AHEAD = 8  # calls by which the host may precede the device, which holds the batches of all


def identity(model: Model) -> Model:
    """The model as it is."""
    return model


class PerPart(optax.GradientTransformationExtraArgs):
    """An optimiser with a mask of the parameters that it moves, `moved(params)`, like `params`."""

    moved: Callable[[PyTree], PyTree]


def per_part(
    optimisers: Mapping[Any, optax.GradientTransformation] | None = None,
    /,
    **by_name: optax.GradientTransformation,
) -> PerPart:
    """One optimiser for each part or field; the rest of the model is fixed.

    `per_part(specimen=optax.adam(5e-3), probe=optax.adam(5e-3))`; fields by their path:
    `per_part({"scan.matrix": optax.adam(1e-2)})`, the longest path wins, and wrappers of a part
    are omitted from it (`detector.shift` of `Masked(…, Descanned(…))`); several together:
    `per_part({("specimen", "probe"): optax.lbfgs()})`. Fields that a part lists in
    `fixed_by_default` (the thickness of a specimen, nominal positions) are optimised only under
    their full path. Rates are in natural units (`solvers.parameter_scaling`), about 1 for
    every parameter: 5e-3 suits most data.
    """
    transforms: dict[Hashable, optax.GradientTransformation] = {"frozen": optax.set_to_zero()}
    group_of = {}
    for names, optimiser in {**(optimisers or {}), **by_name}.items():
        names = (names,) if isinstance(names, str) else names
        group = ", ".join(names)
        transforms[group] = restrict_line_search(optimiser)
        group_of |= dict.fromkeys(names, group)

    def labels(params: PyTree) -> PyTree:
        found = named(params, tuple(group_of))
        require_parameters(params, set(group_of) - set(jax.tree.leaves(found)))
        return jax.tree.map(lambda name: group_of.get(name, "frozen"), found)

    made = PerPart(*scale_parameters(optax.partition(transforms, labels)))
    made.moved = lambda params: jax.tree.map(lambda label: label != "frozen", labels(params))
    return made


def require_parameters(params: PyTree, unused: Iterable[str]) -> None:
    """Raise ValueError for `unused` names, which match no parameter, with the closest ones."""
    for name in sorted(unused):
        paths = [path_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        fields = {
            ".".join(path.split(".")[: n + 1]) for path in paths for n in range(path.count(".") + 1)
        }
        near = get_close_matches(name, fields, 1, 0.7)
        part = name.partition(".")[0]
        inside = sorted(
            field for field in fields if field.count(".") == 1 and field.startswith(f"{part}.")
        )
        parts = [f for f in params.__dataclass_fields__ if f != "grid"]
        hint = f"did you mean {near[0]}? " if near else ""
        known = f"{part} has {', '.join(inside)}" if inside else f"its parts are {', '.join(parts)}"
        raise ValueError(f"the model has no parameter {name!r} to optimise; {hint}{known}")


def path_of(path: tuple[Any, ...]) -> str:
    """Path of a leaf as rates name it, without wrappers.

    `scan.positions`; `detector.shift` also for `detector.detector.shift`.
    """
    return unwrapped(jax.tree_util.keystr(path, simple=True, separator="."))


def named(params: PyTree, names: tuple[str, ...]) -> PyTree:
    """For each parameter the longest of `names` (paths of parts or fields) that covers it.

    "frozen" if none does. Fields in `fixed_by_default` are covered only by their full path.
    """

    def label(path: tuple[Any, ...], _: Any) -> str:
        node = params
        shortest = 0
        for depth, key in enumerate(path):
            if getattr(key, "name", None) in getattr(node, "fixed_by_default", ()):
                shortest = len(path_of(path[: depth + 1]))
            node = child(node, key)
        own = {n: unwrapped(n) for n in names}
        covering = [
            n
            for n in names
            if len(own[n]) >= shortest and f"{path_of(path)}.".startswith(f"{own[n]}.")
        ]
        return max(covering, key=lambda n: len(own[n]), default="frozen")

    return jax.tree_util.tree_map_with_path(label, params)


def unwrapped(name: str) -> str:
    """A dotted name without parts that repeat the preceding one."""
    return ".".join(part for part, _ in groupby(name.split(".")))


def trainable(model: Model) -> Model:
    """Parameters of a model: every inexact array, None elsewhere."""
    return eqx.filter(model, eqx.is_inexact_array)


def strip_weak_types(tree: PyTree) -> PyTree:
    """The tree without weak types, which would cause a retrace in the second step."""
    return jax.tree.map(
        lambda x: jax.lax.convert_element_type(x, x.dtype) if eqx.is_array(x) else x, tree
    )


def copy_for_donation(tree: PyTree) -> PyTree:
    """A strongly typed copy for donation to a step: arrays that leaves share cannot be donated."""
    return jax.tree.map(lambda x: x.copy() if eqx.is_array(x) else x, strip_weak_types(tree))


@contextlib.contextmanager
def gc_disabled() -> Generator[None, None, None]:
    """Disable garbage collection, which takes a third of the time of tracing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def make_step(
    loss: Callable[[Model, Batch], jax.Array],
    optimiser: optax.GradientTransformation,
    project: Callable[[Model], Model] = identity,
    penalty: Callable[[Model], jax.Array] | None = None,
) -> Callable[[Model, Any, Batch], tuple[Model, Any, dict[str, jax.Array]]]:
    """Compile a pure `step(model, state, batch) -> model, state, info`.

    One step of `optimiser` on `loss(model, batch) + penalty(model)`, then `project`. `info`
    holds `loss` (without the penalty) and `finite`. `init_state(optimiser, model)` returns the
    first state; model and state are donated: keep no other reference to their arrays.
    A stack of batches (`data.stacked`) is processed step by step in one call, `info` for each.
    Calls return before the device has finished, unless it is `AHEAD` calls behind.
    """
    program = made_once(_compiled_step, loss, optimiser, project, penalty)
    calls = deque(maxlen=AHEAD)

    def step(model: Model, state: Any, batch: Batch) -> tuple[Model, Any, dict[str, jax.Array]]:
        leaves, structure = jax.tree.flatten((model, state))
        require_alive(leaves)
        arrays, others = eqx.partition(tuple(leaves), eqx.is_array)
        if len(calls) == AHEAD:
            jax.block_until_ready(calls[0])
        with gc_disabled():
            arrays, info = program(arrays, batch, others, structure)
        if not isinstance(info["finite"], Tracer):
            calls.append(info["finite"])
        return *structure.unflatten(eqx.combine(arrays, others)), info

    return step


def _compiled_step(
    loss: Callable[[Model, Batch], jax.Array],
    optimiser: optax.GradientTransformation,
    project: Callable[[Model], Model],
    penalty: Callable[[Model], jax.Array] | None,
) -> Callable[..., Any]:
    """The program of a step on the leaves of model and state, arrays and others apart."""
    optimiser = optax.with_extra_args_support(optimiser)
    moved_by = getattr(optimiser, "moved", lambda params: jax.tree.map(lambda _: True, params))

    def objective(params: PyTree, rest: PyTree, batch: Batch) -> tuple[jax.Array, jax.Array]:
        model = eqx.combine(params, rest)
        value = loss(model, batch)
        return value + (0.0 if penalty is None else penalty(model)), value

    def one(model: Model, state: Any, batch: Batch) -> tuple[Model, Any, dict[str, jax.Array]]:
        batch = materialize(batch)
        params, rest = eqx.partition(model, eqx.is_inexact_array)
        moved = moved_by(params)
        moving, fixed = eqx.partition(params, moved)
        (total, value), grads = jax.value_and_grad(objective, has_aux=True)(
            moving, eqx.combine(fixed, rest), batch
        )
        # JAX's gradient with respect to a complex leaf is the conjugate of the direction of ascent.
        grads = eqx.combine(jax.tree.map(jnp.conj, grads), jax.tree.map(jnp.zeros_like, fixed))
        updates, state = optimiser.update(
            grads,
            state,
            params,
            value=total,
            grad=grads,
            value_fn=lambda p, model=None, batch=batch: objective(p, rest, batch)[0],
            model=model,
            batch=batch,
        )
        updates = mask_unseen_updates(
            eqx.filter(updates, moved), batch.view, batch.shots, batch.weight
        )
        new = project(eqx.apply_updates(model, updates))
        return strip_weak_types(new), state, {"loss": value, "finite": jnp.isfinite(total)}

    # not Equinox's jit, which waits for the end of every call: the device would be idle
    # until the next call arrives
    @partial(jax.jit, static_argnums=(2, 3), donate_argnums=0)
    def together(
        arrays: tuple[Any, ...], batch: Any, others: tuple[Any, ...], structure: Any
    ) -> Any:
        # shared by all steps
        table = batch.counts.table if isinstance(batch.counts, Rows) else None
        steps = batch if table is None else eqx.tree_at(lambda b: b.counts.table, batch, None)

        def body(arrays: tuple[Any, ...], batch: Any) -> Any:
            if table is not None:
                batch = eqx.tree_at(lambda b: b.counts, batch, Rows(batch.counts.index, table))
            model, state = structure.unflatten(eqx.combine(arrays, others))
            model, state, info = one(model, state, batch)
            return eqx.filter(tuple(jax.tree.leaves((model, state))), eqx.is_array), info

        return body(arrays, steps) if batch.weight.ndim == 1 else jax.lax.scan(body, arrays, steps)

    return together


def init_state(optimiser: optax.GradientTransformation, model: Model) -> Any:
    """Initial state of the optimiser for `model`."""
    params: Any = trainable(model)
    return copy_for_donation(optimiser.init(params))


def minimise(
    loss: Callable[[Model, Batch], jax.Array],
    model: Model,
    batches: Iterable[Batch],
    optimiser: optax.GradientTransformation,
    project: Callable[[Model], Model] = identity,
    penalty: Callable[[Model], jax.Array] | None = None,
) -> tuple[Model, jax.Array]:
    """The model after one step per batch, and the loss of every step.

    A simple loop around `make_step`.
    """
    step = make_step(loss, optimiser, project, penalty)
    history = []
    for view in range(axis_size(model, PerView)):
        require_inside(model, view)
    model, state = copy_for_donation(model), init_state(optimiser, model)
    for batch in stacked(batches):
        model, state, info = step(model, state, batch)
        history.append(info["loss"])
    return model, jnp.asarray(
        np.concatenate([np.atleast_1d(loss) for loss in jax.device_get(history)])
    )
