"""`made_once`: functions made alike share a program; all others do not."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxptycho.inverse.alike import MAX_BYTES, Alike, Unknown, made_once
from jaxptycho.inverse.constraints.registry import CONSTRAINTS
from jaxptycho.inverse.losses import LOSSES, from_noise_or_loss
from jaxptycho.inverse.penalties import PENALTIES
from jaxptycho.inverse.solvers.registry import SOLVERS
from jaxptycho.inverse.step import per_part

MAKERS = {
    **{name: partial(SOLVERS[name], 1e-2) for name in ("adam", "layerwise_adam", "rpie", "lsqml")},
    **{name: partial(PENALTIES[name], 0.1) for name in ("l1", "l2", "total_variation")},
    "constraint": CONSTRAINTS["amplitude_clamp"],
    "schedule": lambda: optax.cosine_decay_schedule(1e-2, 10),
    "parts": lambda: per_part(specimen=optax.adam(1e-2), probe=optax.lbfgs()),
    **{name: partial(from_noise_or_loss, noise) for name, noise in LOSSES.items()},
}


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_made_twice_is_alike(name):
    one, other = Alike(MAKERS[name]()), Alike(MAKERS[name]())
    assert one == other
    assert hash(one) == hash(other)


def test_all_makers_differ_from_each_other():
    assert len({Alike(make()) for make in MAKERS.values()}) == len(MAKERS)


def test_other_values_are_told_apart():
    array = jnp.arange(3.0)
    values = [1, 1.0, True, None, "1", array, array + 1, array.astype(int), (1, 2), [1, 2]]
    values += [{"a": 1}, {"a": 2}, np.float32(1), np.zeros(2), np.zeros((2, 1)), jax.jit(jnp.sin)]
    made = [Alike(optax.scale, value) for value in values]
    assert len(set(made)) == len(made)
    moved = per_part(specimen=optax.adam(1e-2))
    moved.moved = lambda params: params
    with pytest.raises(Unknown):
        Alike(moved)
    assert Alike(per_part(specimen=optax.adam(1e-2))) != Alike(per_part(probe=optax.adam(1e-2)))


@pytest.mark.parametrize(
    "value",
    [lambda model: model, object(), np.zeros(MAX_BYTES), jnp.zeros(MAX_BYTES), partial(print, {1})],
)
def test_what_may_change_or_is_large_is_never_shared(value):
    with pytest.raises(Unknown):
        Alike(value)
    with pytest.raises(Unknown):
        Alike(optax.masked(optax.adam(1e-2), value) if callable(value) else (1, [value]))
    assert made_once(lambda value: [value], value) is not made_once(lambda value: [value], value)


def test_functions_that_hold_each_other_are_alike():
    """As the line search of optax does; a cycle is told from its unrolled form."""
    line_search = Alike(optax.lbfgs())
    assert line_search == Alike(optax.lbfgs())
    cycle = [1]
    cycle.append(cycle)
    assert Alike(cycle) != Alike([1, [1, cycle]])
    assert made_once(list, optax.lbfgs()) is made_once(list, optax.lbfgs())
