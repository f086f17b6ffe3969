"""Verdicts about models that are right, wrong, over-fitted, or have nothing to explain."""

from types import SimpleNamespace
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from jaxptycho import Dataset, Grid, predict
from jaxptycho.analysis.evidence import Evidence
from jaxptycho.analysis.verdict import conclude, judge
from jaxptycho.cli.output import EXPLAINS_LITTLE, exit_code
from jaxptycho.start.guess import guess_model

ABOUT = {"semiangle_mrad": 25.0, "defocus_angstrom": 60.0}


class Row(NamedTuple):
    step: str
    loss: float
    held_out: float | None


def true_model(dose=2000, amplitude=0.5, views=1):
    """A phase object under 8 × 8 shots of 32² pixels, and its positions [Å]."""
    nodes = np.stack(
        np.meshgrid(np.arange(8) * 1.2, np.arange(8) * 1.2, indexing="ij"), -1
    ).reshape(-1, 2)
    flat = np.full((64, 32, 32), dose / 1024)
    data = Dataset(flat, nodes, Grid((32, 32), 0.3, voltage_kv=80.0), about=ABOUT)
    empty = guess_model(data, specimen="phase")
    y, x = np.mgrid[: empty.specimen.phase.shape[1], : empty.specimen.phase.shape[2]]
    phase = amplitude * (np.cos(0.9 * y) * np.cos(0.7 * x) + (np.hypot(y - 30, x - 26) < 8))
    return eqx.tree_at(lambda m: m.specimen.phase, empty, jnp.asarray(phase)[None]), nodes


def measured(model, positions, seed=0, gain=1):
    expected = np.fft.fftshift(
        np.asarray(eqx.filter_jit(predict)(model, np.arange(64))), axes=(1, 2)
    )
    counts = gain * np.random.default_rng(seed).poisson(expected / gain)
    return Dataset(counts.astype(np.uint16), positions, model.grid, about=ABOUT)


def moved(model, change):
    return eqx.tree_at(
        lambda m: m.scan.positions.values, model, change(model.scan.positions.values)
    )


def with_phase(model, change):
    return eqx.tree_at(lambda m: m.specimen.phase, model, change(model.specimen.phase))


def residual(evidence):
    """Variation that the model leaves, over counting noise."""
    return (evidence.variation - evidence.explained) / evidence.noise


@pytest.mark.parametrize("hold_out", [0.0, 0.2])
@pytest.mark.parametrize("dose", [50, 200, 800, 2000, 20000])
def test_the_true_model_explains_all_of_the_variation_and_leaves_counting_noise(dose, hold_out):
    model, positions = true_model(dose)
    verdict = judge(model, measured(model, positions), hold_out=hold_out)
    evidence = verdict.evidence
    assert verdict.explains
    assert not verdict.causes
    assert evidence.held_out == (hold_out > 0)
    assert evidence.predicts
    noise_error = evidence.excess_error / evidence.noise
    assert residual(evidence) == pytest.approx(1, abs=3.5 * noise_error + 0.005)
    assert evidence.explained == pytest.approx(evidence.excess, abs=3.5 * evidence.excess_error)
    if evidence.excess > 0:  # else no share of it is known
        assert evidence.share == pytest.approx(1, abs=3.5 * evidence.share_error)


def test_standard_error_of_the_share_is_its_spread_over_noise():
    model, positions = true_model(800)
    found = [
        judge(model, measured(model, positions, seed), hold_out=0.2).evidence for seed in range(12)
    ]
    shares = [evidence.share for evidence in found]
    assert np.std(shares) == pytest.approx(np.mean([e.share_error for e in found]), rel=0.6)
    assert np.mean(shares) == pytest.approx(1, abs=3.5 * np.std(shares) / np.sqrt(12))


@pytest.mark.parametrize("gain", [2, 4])
def test_counts_of_a_camera_that_gives_more_than_one_for_a_quantum_are_explained(gain):
    model, positions = true_model(500 * gain)
    verdict = judge(model, measured(model, positions, gain=gain), hold_out=0.2)
    assert verdict.explains
    assert not verdict.causes
    assert verdict.evidence.pixel_noise == pytest.approx(gain, rel=0.2)
    assert residual(verdict.evidence) == pytest.approx(1, abs=0.25)
    assert f"vary by {verdict.evidence.pixel_noise:.2g} times their mean" in str(verdict)


@pytest.mark.parametrize("dose", [200, 2000, 20000])
def test_a_model_with_dark_pixels_that_are_too_dark_is_not_alarming(dose):
    """Pearson's χ² of such a model is far above that of the mean pattern."""
    model, positions = true_model(dose)
    data = measured(model, positions)
    scattered = np.random.default_rng(5).poisson(0.02 * dose / 1024, (64, 32, 32))
    data = Dataset(data.counts[0] + scattered.astype(np.uint16), positions, model.grid, about=ABOUT)
    verdict = judge(model, data, hold_out=0.2)
    assert verdict.explains
    assert not verdict.causes
    assert residual(verdict.evidence) < verdict.evidence.variation / verdict.evidence.noise
    assert residual(verdict.evidence) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("hold_out", [0.0, 0.1])
def test_a_model_judged_by_patterns_of_its_fit_only_reproduces_them(hold_out):
    """Six of 64 held-out patterns are too few to judge by."""
    model, positions = true_model(20000)
    verdict = judge(model, measured(model, positions), hold_out=hold_out)
    assert verdict.explains
    assert verdict.lines[0].startswith("The model reproduces")
    assert "increase data.hold_out" in str(verdict)
    assert "held out" not in str(judge(model, measured(model, positions), hold_out=0.2))


def test_patterns_of_the_fit_must_be_reproduced_for_the_most_part():
    """A wrong geometry reproduces a part of the patterns that it was fitted to."""
    model, positions = true_model(20000)
    weak = with_phase(model, lambda p: 0.15 * p)
    held_out, fitted = (judge(weak, measured(model, positions), hold_out=h) for h in (0.2, 0.0))
    assert held_out.explains
    assert not fitted.explains
    assert "reproduces only" in fitted.lines[0]
    assert fitted.causes


@pytest.mark.parametrize(
    "wrong",
    [
        lambda m: moved(m, lambda p: p * 1e-10),  # metres
        lambda m: moved(m, lambda p: p[:, ::-1]),
        lambda m: moved(m, lambda p: p.max(0) - p),
        lambda m: with_phase(m, lambda p: -p),
        lambda m: with_phase(m, jnp.zeros_like),
        lambda m: with_phase(
            m, lambda p: jnp.asarray(np.random.default_rng(1).normal(0, 1, p.shape))
        ),
    ],
    ids=["metres", "swapped", "turned", "negative", "vacuum", "noise"],
)
def test_a_wrong_model_does_not_explain(wrong):
    model, positions = true_model(2000)
    verdict = judge(wrong(model), measured(model, positions), hold_out=0.2)
    assert not verdict.explains
    assert verdict.lines[0].startswith("The model does not explain")
    assert verdict.causes


@pytest.mark.parametrize("dose", [50, 200])
@pytest.mark.parametrize(
    "change", [lambda p: p * 1e-10, lambda p: p[:, ::-1]], ids=["metres", "swapped"]
)
def test_a_wrong_model_at_low_dose_predicts_nothing(dose, change):
    model, positions = true_model(dose)
    verdict = judge(moved(model, change), measured(model, positions), hold_out=0.2)
    assert not verdict.evidence.predicts


def test_fitted_noise_is_a_cause_where_true_variation_is_exaggerated():
    model, positions = true_model(2000)
    noise = 0.3 * np.random.default_rng(2).normal(size=model.specimen.phase.shape)
    fitted = with_phase(model, lambda p: 0.5 * p + noise)
    verdict = judge(fitted, measured(model, positions), [9.0, 8.0, 7.99], hold_out=0.2)
    assert verdict.evidence.predicts
    assert not verdict.explains
    assert "exaggerates" in verdict.lines[0]
    assert "fitted noise" in verdict.causes[-1]


def test_a_weak_first_epoch_explains_something_and_names_causes():
    model, positions = true_model(20000)
    verdict = judge(
        with_phase(model, lambda p: 0.05 * p), measured(model, positions), [9.0], hold_out=0.2
    )
    assert verdict.explains
    assert 0 < verdict.evidence.share < 0.3
    assert "step.0.epochs" in verdict.causes[0]


@pytest.mark.parametrize("radius", [6, 9])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_specimen_in_few_of_the_patterns_is_explained(radius, seed):
    """Shots that differ in how much they vary do not make what is explained uncertain."""
    model, positions = true_model(20000)
    ny, nx = model.specimen.phase.shape[1:]
    y, x = np.mgrid[:ny, :nx]
    spot = jnp.asarray(np.hypot(y - ny / 2, x - nx / 2) < radius)
    model = with_phase(model, lambda p: p * spot)
    verdict = judge(model, measured(model, positions, seed), hold_out=0.2)
    assert verdict.explains
    assert verdict.evidence.share == pytest.approx(1, abs=0.1)
    turned = moved(model, lambda p: p[:, ::-1] + jnp.asarray([0.0, 3.0]))
    assert not judge(turned, measured(model, positions, seed), hold_out=0.2).explains


@pytest.mark.parametrize("dose", [50, 2000, 20000])
def test_vacuum_has_nothing_to_explain(dose):
    model, positions = true_model(dose, amplitude=0.0)
    verdict = judge(model, measured(model, positions), hold_out=0.2)
    assert verdict.explains
    assert "differ by no more than noise" in verdict.lines[0]


def test_dose_that_varies_by_chance_is_no_prediction():
    """Patterns of 50 counts, less than one a pixel: E√n then varies with the dose of a shot."""
    model, positions = true_model(50, amplitude=0.0)
    found = [
        judge(model, measured(model, positions, seed), hold_out=0.2).evidence for seed in range(16)
    ]
    assert not any(evidence.predicts for evidence in found)
    chance = np.mean([e.covariance / e.covariance_error for e in found])
    assert chance == pytest.approx(0, abs=0.9)


@pytest.mark.parametrize("dose", [50, 2000])
def test_a_model_far_from_patterns_of_vacuum_is_named(dose):
    model, positions = true_model(dose, amplitude=0.0)
    data = measured(model, positions)
    narrow = eqx.tree_at(
        lambda m: m.probe.waves, model, jnp.full_like(model.probe.waves, np.sqrt(dose) / 32)
    )
    assert not judge(narrow, data, hold_out=0.2).explains
    assert not judge(narrow, data).explains


def test_a_loss_that_has_doubled_within_its_step_is_a_divergence():
    model, positions = true_model(2000)
    evidence = judge(model, measured(model, positions)).evidence
    assert conclude(evidence, [1.0, 0.5, 0.6]).explains
    assert conclude(
        evidence, [Row("coarse", 1.0, None), Row("fine", 5.0, None), Row("fine", 4.0, None)]
    ).explains
    diverged = conclude(evidence, [1.0, 30.0])
    assert not diverged.explains
    assert "rates" in diverged.causes[0]
    assert not conclude(evidence, [1.0, float("nan")]).explains


def test_a_held_out_loss_far_above_the_training_loss_is_said():
    model, positions = true_model(2000)
    evidence = judge(model, measured(model, positions)).evidence
    assert "28.0 times" in str(conclude(evidence, [Row("a", 2.0, 30.0), Row("a", 1.0, 28.0)]))
    assert "times" not in str(conclude(evidence, [Row("a", 2.0, 2.0), Row("a", 1.0, 1.2)]))


def test_one_pattern_has_no_mean_to_be_compared_with():
    model, positions = true_model(2000)
    data = measured(model, positions).subset([3])
    verdict = judge(model, data)
    assert verdict.explains
    assert verdict.evidence.shots == 0


SHARES = {
    "a quarter of held-out patterns": (0.25, True, True),
    "most of held-out patterns": (0.9, True, False),
    "little of few held-out patterns": (0.2, True, True),
    "half of fitted patterns": (0.6, False, True),
    "most of fitted patterns": (0.9, False, False),
}


@pytest.mark.parametrize("name", SHARES)
def test_a_share_that_wrong_geometries_reach_is_doubtful(name):
    share, held_out, doubtful = SHARES[name]
    error = 0.12 if "few" in name else 0.03
    found = Evidence(
        shots=8,
        held_out=held_out,
        dose=8e3,
        variation=100.0,
        noise=10.0,
        excess_error=1.0,
        modelled=90 * share,
        covariance=90 * share,
        covariance_error=5.0,
        share_error=error,
    )
    verdict = conclude(found, [9.0, 5.0, 4.0, 4.0])
    assert (verdict.explains, verdict.doubtful) == (True, doubtful)
    outcome = SimpleNamespace(finished=True, verdict=verdict)
    assert exit_code(outcome) == (EXPLAINS_LITTLE if doubtful else 0)
    assert not conclude(found, [9.0, 5.0]).doubtful  # the epochs were too few to tell
    losses = zip([9.0, 7.0, 5.0], [9.0, 8.0, 7.9], strict=True)  # what is held out stays
    overfitting = conclude(found, [Row("a", loss, held) for loss, held in losses])
    assert overfitting.doubtful == doubtful
