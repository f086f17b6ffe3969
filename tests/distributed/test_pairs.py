"""Two real processes step as one device does: each model, data-parallel, in slabs, and both."""

from pathlib import Path

import pytest
from pairs import pair

STEPS = """
sys.path[:0] = sys.argv[2:4]
import numpy as np
from test_slabs import MODELS, RATES, assert_same, batch_on, two_steps
from models import any_batch
from jaxptycho import Batch, distribute, init_state, make_step, mesh, misfit, poisson
from jaxptycho.inverse.penalties import total_variation
from jaxptycho.inverse.step import copy_for_donation
from jaxptycho.distributed.sharding import snapshot, place_on_mesh, restore
from jaxptycho.distributed.multihost import local, part, global_batch
name, count, tolerance = sys.argv[4], int(sys.argv[5]), float(sys.argv[6])
model = MODELS[name]()
batch = any_batch(model, view=1 if name in ("volume", "turned") else 0, weight=[1, 1, 0.5, 1, 0, 1, 1])
losses, expected, _ = two_steps(model, batch)
devices, (rank, of) = mesh(4, count), part()
on = batch_on(devices, model, batch)
n = len(on.shots) // of
own = Batch(on.view, *(np.asarray(a)[rank * n : (rank + 1) * n] for a in (on.shots, on.counts, on.weight)))
step = make_step(distribute(misfit(poisson), devices), RATES, penalty=total_variation(0.1))
state = place_on_mesh(init_state(RATES, model), devices, model)
moved, found = place_on_mesh(copy_for_donation(model), devices), []
for _ in range(2):
    moved, state = restore(snapshot((moved, state)))  # as every epoch keeps them
    moved, state, info = step(moved, state, global_batch(own, devices))
    found.append(float(info["loss"]))
np.testing.assert_allclose(found, losses, rtol=tolerance)
assert_same(local(moved), expected, tolerance)
print("as one")
"""
NAMES = ("single", "multislice", "relaxed", "volume")
QUICK = {("single", 4)}
HERE = Path(__file__).parent


def stepped(name, slabs, tolerance, double):
    said = pair(
        STEPS, HERE, HERE.parent / "helpers", name, slabs, tolerance, devices=2, JAX_ENABLE_X64=double,
        JAX_DISABLE_MOST_OPTIMIZATIONS=1,
    )  # fmt: skip
    assert [out.splitlines()[-1] for out in said] == ["as one"] * 2, said


@pytest.mark.parametrize(
    ("name", "slabs"),
    [
        pytest.param(name, slabs, marks=[] if (name, slabs) in QUICK else pytest.mark.slow)
        for name in NAMES
        for slabs in (1, 4, 2)
    ],
)
def test_two_processes_step_as_one_device(name, slabs):
    stepped(name, slabs, 1e-10, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_two_processes_agree_in_single_precision(name):
    stepped(name, 2, 1e-5, 0)
