"""A run whose specimen lies in slabs."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from first_step import opened
from killed import gone_on, killed

from jaxptycho.distributed.checkpoint import Checkpoints
from jaxptycho.distributed.sharding import place_on_mesh
from jaxptycho.inverse.step import init_state
from jaxptycho.jobs.reading import make_job
from jaxptycho.jobs.runner import start
from jaxptycho.runs import checkpoints
from jaxptycho.runs.state import Progress

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.mark.slow
def test_a_run_in_slabs_learns_as_one(values, tmp_path):
    whole = start(make_job(values), tmp_path / "whole")
    split = start(make_job(values | {"run": {"devices": 4, "slabs": 2}}), tmp_path / "split")
    assert split.finished
    rows = whole.model.specimen.phase.shape[1]
    assert split.model.specimen.phase.shape[1] == rows + rows % 2
    np.testing.assert_allclose(
        split.history[-1].loss, whole.history[-1].loss, rtol=0.05
    )  # other batches
    np.testing.assert_allclose(split.fit["chi2"], whole.fit["chi2"], rtol=0.05)


def test_the_rest_of_an_epoch_is_dealt_as_it_was_begun(values, tmp_path):
    """Positions that move within an epoch would live in other slabs after a resume, and their shots be seen twice."""
    one = {"kind": "refine", "epochs": 3, "batch": 12, "optimiser": "sgd", "rates": {"scan": 1e-2}}
    job = make_job(values | {"step": [one], "run": {"devices": 4, "slabs": 2}})
    step, _, context, first, loop = opened(job)
    source = context.source
    model = place_on_mesh(first, loop.devices)
    state = place_on_mesh(init_state(loop._optimiser, model), loop.devices, model)
    progress = Progress(model, state, home=source.home(model))
    whole = [batch.shots for batch in loop._batches(progress)]
    progress.losses = [(1.0, 12.0)] * 2
    down = jnp.array([3.0, 0.0])
    progress.model = eqx.tree_at(
        lambda m: m.scan.positions.values, model, model.scan.positions.values + down
    )
    assert (source.home(progress.model)[0] != progress.home[0]).any()
    with Checkpoints(tmp_path) as kept:
        checkpoints.save_progress(kept, 0, 2, progress, source)
    again = checkpoints.restore_progress(
        Checkpoints(tmp_path), 0, first, partial(step._template, source), source
    )
    np.testing.assert_array_equal([batch.shots for batch in loop._batches(again)], whole[2:])


ALL = 64  # shots: a batch of all of them is the same in any slabs
CASES = {
    "shots": ((4, 1), (2, 1), 15),
    "more groups": ((2, 2), (8, 2), 15),
    "fewer slabs": ((4, 4), (2, 2), ALL),
    "into slabs, with a row more": ((1, 1), (4, 2), ALL),
    "out of slabs": ((8, 4), (2, 1), ALL),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_run_killed_on_some_devices_ends_the_same_on_others(values, tmp_path, name):
    (devices, slabs), (others, into), batch = CASES[name]
    rates = {"specimen": 5e-2, "probe": 5e-3, "scan": 1e-2}
    support = {"kind": "amplitude_clamp", "each_step": True}
    steps = [{"kind": "refine", "epochs": 1, "batch": batch, "rates": rates}]
    steps += [
        {
            "kind": "refine",
            "name": "modes",
            "epochs": 2,
            "batch": batch,
            "modes": 2,
            "rates": rates,
            "constraint": [support],
        }
    ]
    run = {"devices": devices, "slabs": slabs, "checkpoint_every": 1}
    job = make_job(values | {"step": steps, "run": run})
    whole = start(job, tmp_path / "whole")
    assert killed(job, tmp_path / "run", 2 * 58 + 1)  # in the last epoch
    ended = gone_on(tmp_path / "run", devices=others, slabs=into)
    assert ended.finished
    found, expected = (
        jax.tree.leaves(eqx.filter(o.model, eqx.is_inexact_array)) for o in (ended, whole)
    )
    for one, other in zip(found, expected, strict=True):
        if one.ndim == 3 and one.shape[1] % 2 < other.shape[1] % 2:
            vacuum = float(np.iscomplexobj(one))  # of a transmission, or of a phase
            added = one[:, other.shape[1] :]  # nobody sees this row
            np.testing.assert_array_equal(added, vacuum)
            one = one[:, : other.shape[1]]
        np.testing.assert_allclose(one, other, atol=1e-8 * np.abs(other).max())
    losses = [[row.loss for row in outcome.history] for outcome in (ended, whole)]
    np.testing.assert_allclose(*losses, rtol=1e-9)
