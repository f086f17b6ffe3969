"""Accelerated Wirtinger flow: its first step, its descent, and its momentum."""

from functools import partial

import equinox as eqx
import jax
import models
import numpy as np
import pytest

from jaxptycho.inverse.losses import amplitude, misfit
from jaxptycho.inverse.solvers import awf, rpie
from jaxptycho.inverse.step import minimise, per_part

LOSS = misfit(partial(amplitude, eps=0.0))


def losses_of(optimiser, steps=12):
    """Losses of steps on all shots of patterns that the model can explain, and the model."""
    truth = models.thin(specimen=models.transmission_stack())
    batch = models.batch_for(truth)
    counts = jax.jit(lambda m: models.predict(m, batch.shots))(models.other(truth))
    batch = eqx.tree_at(lambda b: b.counts, batch, counts)
    model, found = minimise(LOSS, truth, [batch] * steps, optimiser)
    return found, model


def test_the_first_step_is_that_of_rpie():
    """Equal curvatures: those of the batch are those of all shots."""
    _, one = losses_of(per_part(specimen=awf(0.3)), 1)
    _, other = losses_of(per_part(specimen=rpie(0.3)), 1)
    np.testing.assert_allclose(one.specimen.transmission, other.specimen.transmission, rtol=1e-10)


def test_steps_fall_without_a_rate_and_momentum_shortens_the_way():
    """Steps of 1/Lipschitz never raise the loss of all shots (majorisation)."""
    plain, _ = losses_of(per_part(specimen=awf(momentum=0.0)))
    fast, _ = losses_of(per_part(specimen=awf()))
    assert (np.diff(plain) < 0).all()
    assert fast[-1] < 0.5 * plain[-1]


def test_a_regularisation_of_nothing_is_refused():
    with pytest.raises(ValueError, match="regularisation is 0"):
        awf(0.0)
