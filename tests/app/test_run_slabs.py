"""A run whose specimen lies in slabs."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from jaxptycho.app.jobs import make_job
from jaxptycho.app.loop import Progress
from jaxptycho.app.run import found, keep, loop_of, start
from jaxptycho.machines.checkpoint import Checkpoints
from jaxptycho.machines.placement import place


@pytest.mark.slow
def test_a_run_in_slabs_learns_as_one(values, tmp_path):
    whole = start(make_job(values), tmp_path / "whole")
    split = start(make_job(values | {"run": {"devices": 4, "slabs": 2}}), tmp_path / "split")
    assert split.finished
    rows = whole.model.specimen.phase.shape[1]
    assert split.model.specimen.phase.shape[1] == rows + rows % 2
    np.testing.assert_allclose(split.history[-1].loss, whole.history[-1].loss, rtol=0.05)  # other batches
    np.testing.assert_allclose(split.fit["chi2"], whole.fit["chi2"], rtol=0.05)


def test_the_rest_of_an_epoch_is_dealt_as_it_was_begun(values, tmp_path):
    """Positions that move within an epoch would live in other slabs after a resume, and their shots be seen twice."""
    one = {"epochs": 3, "batch": 12, "optimiser": "sgd", "rates": {"scan": 1e-2}}
    job = make_job(values | {"stage": [one], "run": {"devices": 4, "slabs": 2}})
    loop = loop_of(job)
    model = place(loop.first_model(), loop.devices)
    progress = Progress(model, place(loop.first_state(0, model), loop.devices, model), home=loop.homed(model))
    whole = [batch.shots for batch in loop.batches_left(progress)]
    progress.losses = [(1.0, 12.0)] * 2
    down = jnp.array([3.0, 0.0])
    progress.model = eqx.tree_at(lambda m: m.scan.positions.values, model, model.scan.positions.values + down)
    assert (loop.homed(progress.model)[0] != progress.home[0]).any()
    with Checkpoints(tmp_path) as kept:
        keep(loop, progress, kept)
    again = found(loop_of(job), Checkpoints(tmp_path))
    np.testing.assert_array_equal([batch.shots for batch in loop.batches_left(again)], whole[2:])
