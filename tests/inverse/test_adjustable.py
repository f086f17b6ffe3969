"""Rates in the state of an optimiser: changed without a second trace."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from models import batch_for, thin, transmission_stack

from jaxptycho import init_state, make_step, misfit, per_part
from jaxptycho.inverse.adjustable import adjust, adjustable
from jaxptycho.inverse.automatic import batch_size, proportions
from jaxptycho.inverse.losses import amplitude
from jaxptycho.inverse.step import copy_for_donation
from jaxptycho.parts.slices import mean_slice

PARTS = ("specimen", "probe")


def test_updates_are_multiplied_by_rate_and_level_and_nothing_is_traced_again():
    traces = []
    loss = misfit(amplitude)

    def counting(model, batch):
        traces.append(1)
        return loss(model, batch)

    optimiser = adjustable(per_part(specimen=optax.sgd(1.0), probe=optax.sgd(1.0)), PARTS)
    step = make_step(counting, optimiser)
    batch = batch_for(thin())
    gradient = jax.grad(lambda phase: loss(_with_phase(phase), batch))(thin().specimen.phase)
    for rates, level in (({"specimen": 1e-4, "probe": 0.0}, 1.0), ({"specimen": 1e-3}, 0.5)):
        state = adjust(init_state(optimiser, thin()), {"probe": 0.0} | rates, level, fall=0.25)
        moved, state, _ = step(copy_for_donation(thin()), state, batch)
        change = moved.specimen.phase - thin().specimen.phase
        np.testing.assert_allclose(change, -level * rates["specimen"] * gradient, rtol=1e-4)
        np.testing.assert_array_equal(moved.probe.waves, thin().probe.waves)
        assert float(state.level) == level - 0.25
    assert len(traces) == 1


def test_tied_slices_move_alike_and_freed_ones_apart():
    thick = transmission_stack(3)
    thick = eqx.tree_at(lambda s: s.transmission, thick, mean_slice(thick).transmission)
    model = thin(specimen=thick)
    optimiser = adjustable(per_part(specimen=optax.adam(1e-3)), ("specimen",), ties=True)
    step = make_step(misfit(amplitude), optimiser)
    for tied in (True, False):
        state = adjust(init_state(optimiser, model), {"specimen": 1.0}, tied=tied)
        moved = copy_for_donation(model)
        for _ in range(2):
            moved, state, _ = step(moved, state, batch_for(model))
        slices = moved.specimen.transmission
        assert float(jnp.abs(slices - thick.transmission).max()) > 1e-4
        apart = float(jnp.abs(slices - slices[0]).max())
        assert (apart == 0.0) == tied


def _with_phase(phase):
    specimen = thin().specimen
    return thin(specimen=type(specimen)(phase, specimen.absorption, 8.0, specimen.origin))


def test_all_free_parts_have_a_proportion():
    assert set(proportions(thin())) == {"specimen", "probe", "scan"}


def test_batches_make_about_thirty_two_steps():
    assert [batch_size(n) for n in (10, 200, 506, 1004, 4014, 10**6)] == [8, 8, 16, 32, 128, 128]
