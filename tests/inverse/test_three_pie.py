"""Sequential 3PIE: PIE for one slice, descent through many, and momentum of PIE."""

import equinox as eqx
import jax
import jax.numpy as jnp
import models
import numpy as np
import optax
import pytest

from jaxptycho.inverse.losses import amplitude, misfit
from jaxptycho.inverse.solvers import rpie, three_pie
from jaxptycho.inverse.solvers.mpie import periodic_momentum
from jaxptycho.inverse.step import minimise, per_part

pytestmark = pytest.mark.usefixtures("quick_to_compile")
LOSS = misfit(amplitude)


def stepped(optimiser, model, batch, steps=1):
    """The model after some steps on one batch, and their losses."""
    return minimise(LOSS, model, [batch] * steps, optimiser)


def test_one_slice_is_a_step_of_rpie():
    model = models.thin()
    batch = models.batch_for(model, range(4), weight=[1, 1, 1, 0])
    one, _ = stepped(per_part(specimen=three_pie(0.3)), model, batch)
    other, _ = stepped(per_part(specimen=rpie(0.3)), model, batch)
    np.testing.assert_allclose(one.specimen.phase, other.specimen.phase, atol=1e-5)
    np.testing.assert_allclose(one.specimen.absorption, other.specimen.absorption, atol=1e-5)


@pytest.mark.parametrize("periodic", [False, True])
def test_full_steps_through_ten_slices_fall(periodic):
    """Steps of rate 1 on all shots; slices that absorb, so the bound cannot rise."""
    model = models.thin(specimen=models.stack(10, 12.0, periodic))
    batch = models.batch_for(model)
    optimiser = per_part(specimen=three_pie(), probe=three_pie())
    _, found = stepped(optimiser, model, batch, 6)
    _, parallel = stepped(per_part(specimen=rpie(), probe=rpie()), model, batch, 6)
    assert (np.diff(found) < 0).all()
    assert found[-1] < parallel[-1]


def test_every_view_has_its_own_probe():
    model = models.two_views()
    model = eqx.tree_at(lambda m: m.specimen, model, models.stack(2))
    batch = models.batch_for(model, range(3), view=1)
    after, _ = stepped(per_part(specimen=three_pie(), probe=three_pie()), model, batch)
    old, new = model.probe.waves.values, after.probe.waves.values
    np.testing.assert_array_equal(new[0], old[0])
    assert not np.allclose(new[1], old[1])


def test_momentum_goes_on_along_the_way_of_a_period():
    """Steps of −1: after T of them v = −T and η·v more, then v = −ηT − T."""
    optimiser = periodic_momentum(optax.sgd(1.0), friction=0.5, period=3)
    state, x, seen = optimiser.init(jnp.zeros(())), jnp.zeros(()), []
    update = jax.jit(optimiser.update)
    for _ in range(6):
        change, state = update(jnp.ones(()), state, x)
        x = x + change
        seen.append(float(x))
    np.testing.assert_allclose(seen, [-1, -2, -4.5, -5.5, -6.5, -9.75])
