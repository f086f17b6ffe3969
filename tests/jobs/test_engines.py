"""Engines in a job: a full step of specimen and probe, Adam for all else, no range test."""

import models
import pytest

from jaxptycho.inverse.solvers.registry import ENGINES
from jaxptycho.jobs.optimisation import Optimisation, build_optimiser


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_needs_no_rate(name):
    model = models.thin(detector=models.DETECTORS["gain"]())
    section = Optimisation.model_validate({"optimiser": name})
    rates = section.rates_of(model)
    assert {part: rate.optimiser for part, rate in rates.items()} == {
        "specimen": None,
        "probe": None,
        "scan": "adam",
        "detector": "adam",
    }
    assert rates["specimen"].rate == section.known_rates(rates)["specimen"] == 1.0
    build_optimiser(section, model, 1).init(models.value_and_gradient(lambda m: 0.0, model)[1])


def test_projections_take_all_shots_at_once():
    assert Optimisation(optimiser="raar").batch_of(516) == 516


def test_a_probe_without_free_pixels_is_left_to_adam():
    rates = Optimisation(optimiser="rpie").rates_of(models.thin(probe=models.aberrated_probe()))
    assert rates["probe"].optimiser == "adam"
