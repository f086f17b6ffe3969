"""The difference map and RAAR: their fixed point, and their way to it from a wrong start."""

import equinox as eqx
import jax
import models
import numpy as np
import pytest

from jaxptycho.inverse.losses import amplitude, misfit
from jaxptycho.inverse.solvers import difference_map, raar
from jaxptycho.inverse.step import copy_for_donation, init_state, make_step, minimise, per_part

TOGETHER = ("specimen", "probe")


def patterns_of(model):
    batch = models.batch_for(model)
    counts = jax.jit(lambda m: models.predict(m, batch.shots))(model)
    return eqx.tree_at(lambda b: b.counts, batch, counts)


@pytest.mark.parametrize("solver", [difference_map, raar])
def test_the_truth_stays_and_is_approached(solver):
    """Two modes, seven shots without noise; the start holds 60 % of the specimen."""
    truth = models.thin(specimen=models.transmission_stack())
    batch = patterns_of(truth)
    optimiser = per_part({TOGETHER: solver(models.N_SHOTS)})
    step = make_step(misfit(amplitude), optimiser)
    after, _, _ = step(copy_for_donation(truth), init_state(optimiser, truth), batch)
    np.testing.assert_allclose(after.specimen.transmission, truth.specimen.transmission, atol=1e-2)
    _, losses = minimise(misfit(amplitude), models.other(truth), [batch] * 25, optimiser)
    assert losses[-1] < 0.05 * losses[0]


def test_the_number_of_shots_has_to_be_that_of_the_scan():
    model = models.thin()
    optimiser = per_part({TOGETHER: raar(5)})
    with pytest.raises(ValueError, match="projections of 5 shots came with a model of 7"):
        make_step(misfit(amplitude), optimiser)(
            model, init_state(optimiser, model), models.any_batch(model)
        )
    with pytest.raises(ValueError, match="together"):
        init_state(per_part(specimen=difference_map(7)), model)
