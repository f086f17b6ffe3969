"""Descent on a model: a public, pure step and the short loop around it.

Any optax transformation is a solver. It is called with the model, the batch and the loss as
extra arguments, so those that need more than a gradient (`pie`, L-BFGS) are transformations
like the others.
"""

import contextlib
import gc
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from difflib import get_close_matches
from functools import partial
from itertools import groupby

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import PyTree

from ..data import Batch, Rows, materialize, stacked
from ..model import Model, require_alive, require_inside
from ..parts.indexed import PerView, axis_size, mask_unseen_updates
from .solvers.parameter_scaling import child, restrict_line_search, scale_parameters

AHEAD = 8  # calls that the host may be ahead of the device, whose memory holds the batches of all of them


def identity(model: Model) -> Model:
    """The model as it is."""
    return model


class PerPart(optax.GradientTransformationExtraArgs):
    """An optimiser that says which parameters it moves: `moved(params)` is True for those, a tree like `params`."""

    moved: Callable[[PyTree], PyTree]


def per_part(optimisers=None, /, **by_name) -> PerPart:
    """One optimiser for each part or field, the rest of the model stays put.

    `per_part(specimen=optax.adam(5e-3), probe=optax.adam(5e-3))`; fields by their path:
    `per_part({"scan.matrix": optax.adam(1e-2)})`, the longest path wins; what wraps a part has no
    name in it (`detector.shift` of `Masked(…, Descanned(…))`); several together:
    `per_part({("specimen", "probe"): optax.lbfgs()})`. What a part calls `given` (the
    thickness of a specimen, nominal positions) moves only when named itself. Rates are in the
    natural units of `inverse.units`, about 1 for every parameter: 5e-3 suits most data.
    """
    transforms: dict[Hashable, optax.GradientTransformation] = {"frozen": optax.set_to_zero()}
    group_of = {}
    for names, optimiser in {**(optimisers or {}), **by_name}.items():
        names = (names,) if isinstance(names, str) else names
        group = ", ".join(names)
        transforms[group] = restrict_line_search(optimiser)
        group_of |= dict.fromkeys(names, group)

    def labels(params):
        found = named(params, tuple(group_of))
        require_parameters(params, set(group_of) - set(jax.tree.leaves(found)))
        return jax.tree.map(lambda name: group_of.get(name, "frozen"), found)

    made = PerPart(*scale_parameters(optax.partition(transforms, labels)))
    made.moved = lambda params: jax.tree.map(lambda label: label != "frozen", labels(params))
    return made


def require_parameters(params, unused: Iterable[str]) -> None:
    """Raises ValueError for `unused` names, which no parameter of `params` has, with those that were meant."""
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


def path_of(path) -> str:
    """The path of a leaf as rates name it, wrappers left out: `scan.positions`, `detector.shift` also
    where it is `detector.detector.shift`."""
    return unwrapped(jax.tree_util.keystr(path, simple=True, separator="."))


def named(params, names: tuple[str, ...]):
    """Which of `names` (paths of parts or fields) moves each parameter: the longest that covers
    it, "frozen" where none does. What a part calls `given` is covered by its own path alone."""

    def label(path, _):
        node, shortest = params, 0
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
    """A dotted name, each part that repeats the one before it left out."""
    return ".".join(part for part, _ in groupby(name.split(".")))


def trainable(model: Model) -> Model:
    """The model's parameters alone: every inexact array, None elsewhere."""
    return eqx.filter(model, eqx.is_inexact_array)


def strip_weak_types(tree: PyTree) -> PyTree:
    """The tree without weak types, which would make the second step trace again."""
    return jax.tree.map(
        lambda x: jax.lax.convert_element_type(x, x.dtype) if eqx.is_array(x) else x, tree
    )


def copy_for_donation(tree: PyTree) -> PyTree:
    """A copy, strongly typed, that a step may take over: arrays that two leaves share cannot be donated."""
    return jax.tree.map(lambda x: x.copy() if eqx.is_array(x) else x, strip_weak_types(tree))


@contextlib.contextmanager
def gc_disabled():
    """Garbage is collected afterwards: a full collection in the midst of tracing takes a third of its time."""
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
):
    """A pure, compiled `step(model, state, batch) -> model, state, info`.

    One step of `optimiser` on `loss(model, batch) + penalty(model)`, then `project`. `info`
    holds `loss` (without the penalty) and `finite`. `init_state(optimiser, model)` makes the
    first state; model and state are donated: keep no other reference to their arrays.
    A stack of batches (`data.stacked`) is worked off step by step in one call, `info` for each.
    Calls return before the device is done, unless it is `AHEAD` calls behind.
    """
    optimiser = optax.with_extra_args_support(optimiser)
    moved_by = getattr(optimiser, "moved", lambda params: jax.tree.map(lambda _: True, params))

    def objective(params, rest, batch):
        model = eqx.combine(params, rest)
        value = loss(model, batch)
        return value + (0.0 if penalty is None else penalty(model)), value

    def one(model, state, batch):
        batch = materialize(batch)
        params, rest = eqx.partition(model, eqx.is_inexact_array)
        moved = moved_by(params)
        moving, fixed = eqx.partition(params, moved)
        (total, value), grads = jax.value_and_grad(objective, has_aux=True)(
            moving, eqx.combine(fixed, rest), batch
        )
        # JAX's gradient by a complex leaf is the conjugate of the direction of ascent.
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

    # not Equinox's jit, which waits for the end of every call: the device would be idle until the next one is there
    @partial(jax.jit, static_argnums=(2, 3), donate_argnums=0)
    def together(arrays, batch, others, structure):
        table = (
            batch.counts.table if isinstance(batch.counts, Rows) else None
        )  # the same for all steps
        steps = batch if table is None else eqx.tree_at(lambda b: b.counts.table, batch, None)

        def body(arrays, batch):
            if table is not None:
                batch = eqx.tree_at(lambda b: b.counts, batch, Rows(batch.counts.index, table))
            model, state = structure.unflatten(eqx.combine(arrays, others))
            model, state, info = one(model, state, batch)
            return eqx.filter(tuple(jax.tree.leaves((model, state))), eqx.is_array), info

        return body(arrays, steps) if batch.weight.ndim == 1 else jax.lax.scan(body, arrays, steps)

    calls = deque(maxlen=AHEAD)

    def step(model, state, batch):
        require_alive((model, state))
        leaves, structure = jax.tree.flatten((model, state))
        arrays, others = eqx.partition(tuple(leaves), eqx.is_array)
        if len(calls) == AHEAD:
            jax.block_until_ready(calls[0])
        with gc_disabled():
            arrays, info = together(arrays, batch, others, structure)
        if not isinstance(info["finite"], Tracer):
            calls.append(info["finite"])
        return *structure.unflatten(eqx.combine(arrays, others)), info

    return step


def init_state(optimiser: optax.GradientTransformation, model: Model):
    """The optimiser's first state for `model`."""
    return copy_for_donation(optimiser.init(trainable(model)))  # pyright: ignore[reportArgumentType]


def minimise(
    loss: Callable[[Model, Batch], jax.Array],
    model: Model,
    batches: Iterable[Batch],
    optimiser: optax.GradientTransformation,
    project: Callable[[Model], Model] = identity,
    penalty: Callable[[Model], jax.Array] | None = None,
) -> tuple[Model, jax.Array]:
    """The model after one step per batch, and the loss of every step.

    A loop that anyone can write by hand around `make_step`.
    """
    step, history = make_step(loss, optimiser, project, penalty), []
    for view in range(axis_size(model, PerView)):
        require_inside(model, view)
    model, state = copy_for_donation(model), init_state(optimiser, model)
    for batch in stacked(batches):
        model, state, info = step(model, state, batch)
        history.append(info["loss"])
    return model, jnp.asarray(
        np.concatenate([np.atleast_1d(loss) for loss in jax.device_get(history)])
    )
