"""Every kind of part that a job can name becomes a model, an optimiser and constraints that fit together."""

import equinox as eqx
import jax
import numpy as np
import pytest
from first_step import Opened, opened

from jaxptycho import PerShot, make_batch, select
from jaxptycho.inverse.step import copy_for_donation
from jaxptycho.jobs import optimisation
from jaxptycho.jobs.measurement import read_data
from jaxptycho.jobs.reading import make_job
from jaxptycho.runs.state import Progress

pytestmark = pytest.mark.usefixtures("quick_to_compile")

THICK = {"specimen": {"kind": "potential", "slices": 3, "thickness_angstrom": 30.0}}
RPIE = {
    "specimen": {"rate": 1.0, "schedule": "linear"},
    "probe": {"rate": 0.5, "options": {"regularisation": 0.5}},
    "scan": {"rate": 1e-2, "optimiser": "adam", "start": 2},
}
JOBS = {
    "relaxed probe": ({"probe": {"kind": "relaxed", "modes": 2}}, {}, "RelaxedProbe"),
    "aberrated probe": (
        {"probe": {"kind": "aberrated", "aberrations_angstrom": {"C30": 1e4}}},
        {},
        "AberratedProbe",
    ),
    "affine scan": (
        {"scan": {"kind": "affine"}},
        {"rates": {"scan.matrix": 1e-2, "scan.shift": 1e-2}},
        "AffineScan",
    ),
    "tilt per shot": (
        THICK
        | {"propagator": {"kind": "angular_spectrum", "tilt_mrad": [0.0, 0.0], "band_limit": 0.667}}
        | {"vary": {"propagator.angles": "shot"}},
        {
            "slices": 5,
            "rates": {"propagator": 1e-2, "specimen": {"rate": 1e-2, "schedule": "exponential"}},
            "constraint": [
                {"kind": "positivity"},
                {"kind": "missing_cone_filter", "semiangle_mrad": 25.0},
            ],
            "penalty": [{"kind": "total_variation", "weight": 1.0, "along": "z"}],
        },
        "BandLimited",
    ),
    "detector": (
        {
            "detector": {
                "gain": 1.0,
                "blur_pixels": 0.5,
                "background": 0.1,
                "supersample": 2,
                "extend": 2,
            },
            "vary": {"detector.factor": "shot"},
        },
        {"rates": {"detector": 1e-2}, "loss": {"kind": "gaussian", "variance": 4.0}},
        "Background",
    ),
    "near field": (
        {"detector": {"effective_distance_angstrom": 500.0}},
        {"optimiser": "momentum"},
        "NearField",
    ),
    "weak phase": ({"specimen": {"kind": "weak"}}, {"optimiser": "lbfgs"}, "WeakPhaseStack"),
    "rPIE": (
        {},
        {"optimiser": "rpie", "options": {"regularisation": 0.3}, "rates": RPIE},
        "TransmissionStack",
    ),
}


def opened_with(values, parts, step, **run) -> Opened:
    values = values | parts | {"step": [{"kind": "refine", "epochs": 3, "batch": 16, **step}]}
    return opened(make_job(values | {"run": {"devices": 1} | run}))


def test_a_job_uses_a_part_of_shots_and_quanta(values):
    whole = read_data(make_job(values))
    chosen = {"fraction": 0.3, "dose_fraction": 0.4}
    part = read_data(make_job(values | {"data": values["data"] | chosen}))
    assert part.n_shots == [round(0.3 * whole.n_shots[0])]
    assert part.dose().mean() == pytest.approx(0.4 * whole.dose().mean(), rel=0.1)


def test_the_seed_decides_which_shots_and_quanta_are_drawn(values):
    def drawn(seed, **section):
        chosen = {"fraction": 0.5, "dose_fraction": 0.5} | section
        job = make_job(
            values | {"data": values["data"] | chosen, "run": {"devices": 1, "seed": seed}}
        )
        return opened(job).data

    assert (
        drawn(1).positions[0].tolist()
        == drawn(1).positions[0].tolist()
        != drawn(2).positions[0].tolist()
    )
    doses = [drawn(seed, fraction=1.0).dose().tolist() for seed in (1, 1, 2)]
    assert doses[0] == doses[1] != doses[2]
    halves = [
        drawn(1, fraction=1.0, dose_fraction=1.0, half=half).dose() for half in ("first", "second")
    ]
    np.testing.assert_array_equal(sum(halves), read_data(make_job(values)).dose())


@pytest.mark.parametrize("name", JOBS)
def test_a_job_becomes_a_model(name, values):
    parts, step, kind = JOBS[name]
    refining = opened_with(values, parts, step)
    refining.runner.check()
    model, data = refining.model, refining.data
    assert kind in [
        type(getattr(model, part)).__name__
        for part in ("probe", "specimen", "scan", "propagator", "detector")
    ]
    batch = make_batch(data, 0, np.arange(4))
    assert jax.eval_shape(lambda: refining.loop._objective(model, batch)).shape == ()
    expected = np.mean(data.dose())
    power = np.sum(np.abs(select(model.probe, PerShot, 0).spectrum(model.grid)) ** 2)
    np.testing.assert_allclose(power, expected, rtol=1e-6)


def test_lbfgs_moves_only_what_it_is_given_and_descends(values):
    refining = opened_with(
        values,
        {"data": values["data"] | {"hold_out": 0.0}},
        {"optimiser": "lbfgs", "batch": 64, "rates": {"specimen": 1.0}},
    )
    progress = Progress(copy_for_donation(refining.model))
    before = refining.model
    assert refining.loop.run(progress) is None
    losses = [row.loss for row in progress.history]
    assert losses[2] < losses[1] < losses[0]
    assert eqx.tree_equal(progress.model.probe, before.probe)
    assert not eqx.tree_equal(progress.model.specimen.phase, before.specimen.phase)


def test_rates_follow_their_schedule():
    rates = {"specimen": {"rate": 1.0, "schedule": "cosine", "end": 0.1, "start": 2}}
    step = optimisation.Optimisation(epochs=4, rates=rates)
    schedule = optimisation._schedule(step.rates["specimen"], step.epochs, steps=10)
    np.testing.assert_allclose(
        [schedule(step) for step in (0, 19, 20, 30, 40)], [0, 0, 1, 0.55, 0.1], atol=1e-6
    )


def test_each_half_starts_from_its_own_data(values):
    """Dose and mean pattern, of which the first guess is made, are those of the half."""
    values = values | {"probe": {"start": "mean_pattern"}}
    doses, probes = {}, {}
    for half in ("all", "black", "white", "first", "second"):
        refining = opened_with(values, {"data": values["data"] | {"half": half}}, {})
        dose = refining.data.dose()
        doses[half] = [dose.sum(), np.sum(np.abs(refining.model.probe.waves) ** 2)]
        probes[half] = np.asarray(refining.model.probe.waves)
        np.testing.assert_allclose(doses[half][1], dose.mean(), rtol=1e-6)
    for one, other in (("black", "white"), ("first", "second")):
        assert doses[one][0] + doses[other][0] == doses["all"][0]
        assert np.abs(probes[one] - probes[other]).max() > 1e-3 * np.abs(probes[one]).max()
    np.testing.assert_allclose(doses["first"][1], doses["all"][1] / 2, rtol=0.02)


def test_a_budget_too_small_for_any_plan_is_said(values):
    refining = opened_with(values, {}, {})
    model = refining.model
    batch = make_batch(refining.data, 0, range(2))
    loss = optimisation.build_loss(refining.step, 1e-6)
    with pytest.raises(ValueError, match=r"the budget is 0.001074 MB"):
        jax.eval_shape(lambda model: loss(model, batch), model)
