"""Gradients of several batches make one step: it is the step of all their shots together."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from models import GRID, batch_for, positions, rng, thin

from jaxptycho import (
    FreeScan,
    PerShot,
    PerView,
    Volume,
    amplitude,
    init_state,
    make_step,
    misfit,
    per_part,
)
from jaxptycho.inverse.penalties import total_variation
from jaxptycho.inverse.solvers.accumulation import accumulate_gradients
from jaxptycho.inverse.solvers.layerwise_adam import layerwise_adam
from jaxptycho.inverse.step import copy_for_donation, trainable
from jaxptycho.jobs.optimisation import Optimisation, build_optimiser

pytestmark = pytest.mark.usefixtures("quick_to_compile")

LOSS, PENALTY = misfit(amplitude), total_variation(0.3)
SHOTS = (3, 2)  # of two views, in batches of three


def series():
    """Two views of a noisy volume, which stand at places of their own."""
    volume = jnp.asarray(20 * rng(1).uniform(size=(6, 32, 30)))
    tilts, shifts = PerView(jnp.array([0.0, 0.7])), PerView(jnp.array([[0.1, -0.2], [0.3, 0.2]]))
    places = positions() - positions().mean(0)
    model = thin(
        specimen=Volume(volume, (0.6, *GRID.pixel), tilts, 2, shift=shifts),
        scan=FreeScan(PerView(PerShot(jnp.stack([places, places])))),
    )
    return model, [
        batch_for(model, range(3), view, np.arange(3) < shots) for view, shots in enumerate(SHOTS)
    ]


def joint(batches):
    """The loss of all their shots, whatever batch comes."""
    weights = [float(b.weight.sum()) for b in batches]
    return lambda model, _: (
        sum(w * LOSS(model, b) for w, b in zip(weights, batches, strict=True)) / sum(weights)
    )


def test_a_gathered_step_is_that_of_the_joint_batch():
    """Views with different numbers of shots, twice in turn, with a penalty on the volume."""
    model, batches = series()
    start = np.asarray(model.specimen.potential)
    ends = []
    for loss, optimiser, passes in (
        (LOSS, accumulate_gradients(layerwise_adam(1e-2), 2), [*batches, *batches]),
        (joint(batches), layerwise_adam(1e-2), batches),
    ):
        named = per_part(specimen=optimiser)
        step, new, state = (
            make_step(loss, named, penalty=PENALTY),
            copy_for_donation(model),
            init_state(named, model),
        )
        volumes = []
        for one in passes:
            new, state, _ = step(new, state, one)
            volumes.append(np.asarray(new.specimen.potential))
        ends.append(volumes)
    turns, whole = ends
    np.testing.assert_array_equal(turns[0], start)  # it waits for the other view
    assert np.abs(whole[1] - start).max() > 1e-3
    np.testing.assert_allclose([turns[1], turns[3]], whole, rtol=1e-9, atol=1e-9)


def moved(optimiser, model, batches):
    """What an optimiser makes of parameters whose gradient is one, batch after batch."""
    params, found = trainable(model), []
    state = optimiser.init(params)
    for one in batches:
        updates, state = optimiser.update(
            jax.tree.map(jnp.ones_like, params), state, params, model=model, batch=one
        )
        found.append(updates.specimen)
    return found


def test_what_differs_from_view_to_view_moves_with_each_batch():
    model, batches = series()
    optimiser = per_part({("specimen", "specimen.shift"): accumulate_gradients(optax.sgd(0.1), 2)})
    first, second = moved(optimiser, model, batches)
    assert not np.any(first.potential)
    assert np.all(second.potential)
    assert np.all(first.shift.values)
    np.testing.assert_array_equal(first.shift.values, second.shift.values)


def test_the_rates_of_a_job_fall_over_the_steps_that_are_left():
    """Two epochs of three batches, two of which make a step: three falling steps."""
    rate = {"rate": 1.0, "schedule": "linear", "end": 0.0}
    step = Optimisation.model_validate(
        {"epochs": 2, "accumulate": 2, "optimiser": "sgd", "rates": {"specimen": rate}}
    )
    model, batches = series()
    steps = [
        -float(by.potential[0, 0, 0])
        for by in moved(build_optimiser(step, model, 3), model, batches * 3)
    ]
    np.testing.assert_allclose(np.array(steps) / steps[1], [0, 1, 0, 2 / 3, 0, 1 / 3], rtol=1e-6)


@pytest.mark.parametrize(
    ("chosen", "why"),
    [
        ({"optimiser": "lbfgs"}, "lbfgs, which searches its steps on one"),
        (
            {"rates": {"probe": {"rate": 1.0, "optimiser": "lbfgs"}}},
            "lbfgs, which searches its steps on one",
        ),
        (
            {"optimiser": "epie", "rates": {"specimen": 1.0}},
            "epie, which divides by the illumination of one",
        ),
    ],
)
def test_what_belongs_to_one_batch_is_not_spread_over_several(chosen, why):
    step = Optimisation.model_validate({"accumulate": 3} | chosen)
    with pytest.raises(ValueError, match=f"accumulates 3 batches for {why}"):
        build_optimiser(step, series()[0], 3)
