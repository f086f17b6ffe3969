"""Specimens in a mixed state: patterns, derivatives, and two states found with their occupancies."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from models import GRID, any_batch, assert_gradient, stack, thin, transmission_stack

import jaxptycho as jp
from jaxptycho.inverse.constraints.registry import build
from jaxptycho.jobs.build import build_model
from jaxptycho.jobs.reading import make_job
from jaxptycho.parts.mixed_states import mixed_states

SHOTS = np.arange(5)
PIXEL, POINTS, STEP = 0.4, 10, 1.0  # Å
ORIGIN = (-8.0, -8.0)  # Å


def two_states() -> jp.MixedStates:
    other = stack(2).map_stacks(lambda values: 0.5 * values[::-1])
    return jp.MixedStates((stack(2), other), jnp.log(jnp.array([0.3, 0.1])))


def test_patterns_of_the_states_add_by_their_occupancies():
    mixed = two_states()
    np.testing.assert_allclose(mixed.occupancies, [0.75, 0.25])
    each = [jp.predict(thin(specimen=state), SHOTS) for state in mixed.states]
    found = jp.predict(thin(specimen=mixed), SHOTS)
    np.testing.assert_allclose(found, 0.75 * each[0] + 0.25 * each[1], rtol=1e-10, atol=1e-12)
    assert jp.waves(thin(specimen=mixed), SHOTS).shape == (len(SHOTS), 4, *GRID.shape)


def test_one_state_is_the_specimen_itself():
    alone = jp.MixedStates((stack(2),), jnp.zeros(1))
    expected = jp.predict(thin(specimen=stack(2)), SHOTS)
    np.testing.assert_array_equal(jp.predict(thin(specimen=alone), SHOTS), expected)


def test_derivatives_by_states_and_occupancies():
    model = thin(specimen=two_states())
    batch = any_batch(model)
    assert_gradient(lambda m: jp.misfit(jp.amplitude)(m, batch), model)


def test_constraints_act_on_every_state_and_figures_see_the_mean():
    states = (transmission_stack(2), transmission_stack(2))
    mixed = jp.MixedStates(states, jnp.zeros(2))
    model = thin(specimen=mixed)
    dark = build("amplitude_clamp", model, highest=0.5)(model).specimen
    assert max(float(jnp.abs(state.transmission).max()) for state in dark.states) <= 0.5 + 1e-9
    positive = build("positivity", model)(model).specimen
    assert min(float(state.phase.min()) for state in positive.states) >= 0
    np.testing.assert_allclose(mixed.phase_per_slice(GRID), states[0].phase)
    np.testing.assert_allclose(mixed.thicknesses(GRID), [8.0, 8.0])
    assert mixed.summary() == {"occupancies of the states": "0.5, 0.5"}


def columns(moved: tuple[float, float]) -> np.ndarray:
    """Phase [rad] of columns at random places, and of one at `moved` (y, x) [Å]."""
    places = np.random.default_rng(3).uniform(-1, 10, (14, 2))
    size = 32 + round((POINTS - 1) * STEP / PIXEL) + 9
    y, x = np.mgrid[:size, :size] * PIXEL + ORIGIN[0]
    heights = [0.5] * len(places) + [1.5]
    return sum(
        height * np.exp(-2 * ((y - v) ** 2 + (x - u) ** 2))
        for height, (v, u) in zip(heights, [*places, moved], strict=True)
    )


def measured(phases: list[np.ndarray], shares: list[float], seed: int) -> jp.Dataset:
    """Incoherent sum of the patterns of static specimens, each a model of its own."""
    grid = jp.Grid((32, 32), PIXEL, 80.0)
    places = STEP * np.stack(np.meshgrid(*[np.arange(POINTS)] * 2, indexing="ij"), -1)
    places = places.reshape(-1, 2).astype(float)
    scan = jp.FreeScan(jp.PerShot(jnp.asarray(places)))
    probe = jp.AberratedProbe(0.025, {"defocus": 80.0}, 1e5)
    expected = sum(
        share
        * np.asarray(
            jp.predict(
                jp.Model(
                    probe,
                    jp.SliceStack(jnp.asarray(phase[None]), None, 0.0, jnp.array(ORIGIN)),
                    scan,
                    grid,
                ),
                np.arange(len(places)),
            )
        )
        for share, phase in zip(shares, phases, strict=True)
    )
    counts = np.random.default_rng(seed).poisson(np.fft.fftshift(expected, (1, 2)))
    about = {"semiangle_mrad": 25.0, "defocus_angstrom": 80.0}
    return jp.Dataset(counts.astype(np.uint32), places, grid, about=about)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_two_states_are_found_with_their_occupancies(seed):
    truth = [columns((4.0, 4.0)), columns((5.2, 4.6))]
    data = measured(truth, [0.7, 0.3], seed)
    rates = {"specimen": 2e-2, "specimen.log_occupancies": 5e-2, "probe": 5e-3}
    steps = 100 * 12
    optimiser = jp.per_part(
        {part: optax.adam(optax.cosine_decay_schedule(r, steps)) for part, r in rates.items()}
    )
    first = jp.first_model(data, specimen="phase", slices=1, states=2)
    found = jp.reconstruct(data, first, optimiser=optimiser, epochs=100, progress=False).model
    inside = (slice(20, 44), slice(20, 44))
    order = np.argsort(-np.asarray(found.specimen.occupancies))
    for number, wanted in zip(order, truth, strict=True):
        phase = np.asarray(found.specimen.states[number].phase[0])
        assert np.corrcoef(phase[inside].ravel(), wanted[inside].ravel())[0, 1] > 0.97
    np.testing.assert_allclose(found.specimen.occupancies[order], [0.7, 0.3], atol=0.06)


def test_a_job_names_the_number_of_states():
    data = jp.Dataset(np.ones((4, *GRID.shape)), np.arange(8.0).reshape(4, 2), GRID)
    job = make_job({"data": {"file": "scan.h5"}, "specimen": {"kind": "phase", "states": 3}})
    model = build_model(job, data)
    np.testing.assert_allclose(model.specimen.occupancies, np.full(3, 1 / 3), rtol=1e-6)
    first, second, _ = (np.asarray(state.phase) for state in model.specimen.states)
    assert 0.02 < np.std(first - second) < 0.06
    one = build_model(make_job({"data": {"file": "scan.h5"}}), data)
    assert isinstance(one.specimen, jp.TransmissionStack)


def test_states_start_apart_around_the_specimen():
    specimen = replace(stack(2), absorption=None)
    mixed = mixed_states(specimen, 4, seed=1)
    spread = np.std([np.asarray(s.phase - specimen.phase) for s in mixed.states])
    assert 0.02 < spread < 0.04
