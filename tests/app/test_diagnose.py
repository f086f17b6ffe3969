"""Blame for a divergence falls only on what the stage moves."""

import jax.numpy as jnp
import pytest
from models import batch_for, thin

from jaxptycho.runs.diagnose import advice, culprit


def step(model, state, batch):
    return model, state, {"finite": jnp.asarray(False)}


def everywhere(model, batch):
    return jnp.nan * (jnp.sum(model.scan.positions.values) + jnp.sum(model.specimen.phase))


@pytest.mark.parametrize(
    ("parts", "blamed"), [(("specimen",), "specimen.phase"), (("scan.positions",), "scan.positions")]
)
def test_only_moved_parts_are_blamed(parts, blamed):
    found = culprit(step, everywhere, parts, thin(), None, [batch_for(thin(), [0])])
    assert found.startswith(f"the gradient of {blamed}")


def test_the_loss_is_blamed_where_no_moved_part_has_a_bad_gradient():
    found = culprit(step, everywhere, ("probe",), thin(), None, [batch_for(thin(), [0])])
    assert found == "the loss itself, at finite parameters"


def test_the_step_of_an_engine_is_named():
    assert "steps of epie are too long; lower rates.probe and rates.specimen" in advice({"epie"}, ("probe", "specimen"))
    assert advice({"adam", ""}, ("probe",)).startswith("lower the rate of this part")
