"""Blame for a divergence falls only on what the step moves."""

import jax.numpy as jnp
import optax
import pytest
from models import batch_for, thin

from jaxptycho import per_part
from jaxptycho.jobs.optimisation import Optimisation
from jaxptycho.runs.diagnose import first_nonfinite


def step(model, state, batch):
    return model, state, {"finite": jnp.asarray(False)}


def moving(*parts):
    return per_part(dict.fromkeys(parts, optax.sgd(1.0)))


def everywhere(model, batch):
    return jnp.nan * (jnp.sum(model.scan.positions.values) + jnp.sum(model.specimen.phase))


@pytest.mark.parametrize(
    ("parts", "blamed"),
    [(("specimen",), "specimen.phase"), (("scan.positions",), "scan.positions")],
)
def test_only_moved_parts_are_blamed(parts, blamed):
    found = first_nonfinite(
        step, everywhere, moving(*parts), thin(), None, [batch_for(thin(), [0])]
    )
    assert found.startswith(f"the gradient of {blamed}")


def test_the_loss_is_blamed_where_no_moved_part_has_a_bad_gradient():
    found = first_nonfinite(
        step, everywhere, moving("probe"), thin(), None, [batch_for(thin(), [0])]
    )
    assert found == "the loss itself, at finite parameters"


def test_the_step_of_an_engine_is_named():
    rates = {"probe": 1.0, "specimen": 1.0}
    words = Optimisation.model_validate({"optimiser": "epie", "rates": rates}).remedy
    assert "steps of epie are too long; lower rates.probe and rates.specimen" in words
    assert Optimisation().remedy.startswith("lower the rate of this part")
