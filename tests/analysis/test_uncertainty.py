"""Information of counts, against closed forms, the matrix written out, and reconstructions of noisy counts."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import (
    DETECTORS,
    DOSE,
    MODELS,
    N_SHOTS,
    aberrated_probe,
    affine_scan,
    relaxed_probe,
    rng,
    stack,
    thin,
    two_views,
)

from jaxptycho import (
    AberratedProbe,
    Batch,
    FreeScan,
    Grid,
    Model,
    PerShot,
    PixelProbe,
    SliceStack,
    misfit,
    poisson,
    predict,
)
from jaxptycho.analysis.information import diagonal, fisher, matrix
from jaxptycho.analysis.uncertainty import bound, deviation_of, sampled_bound
from jaxptycho.inverse.solvers.parameter_scaling import natural_units
from jaxptycho.inverse.step import trainable

pytestmark = pytest.mark.usefixtures("quick_to_compile")


def interferometer(phase=0.7, dose=50.0, pixels=2) -> Model:
    """Two waves and their two outputs: every quantum tells as much of the phase between them."""
    probe = PixelProbe(jnp.full((1, 1, 2), np.sqrt(dose / 2), complex))
    phases = jnp.zeros((1, 1, pixels)).at[0, 0, 1].set(phase)
    specimen = SliceStack(phases, None, 1.0, jnp.array([0.0, 0.0]))
    return Model(probe, specimen, FreeScan(jnp.array([0.0, 1.0])), Grid((1, 2), 1.0, 80.0))


def small_scan(dose=1e5, n=8, steps=4) -> Model:
    """A periodic phase of n² pixels that steps² positions see from everywhere."""
    random, grid = rng(0), Grid((n, n), 0.4, 80.0)
    nodes = np.stack(
        np.meshgrid(*[np.arange(steps) * n * 0.4 / steps] * 2, indexing="ij"), -1
    ).reshape(-1, 2)
    spectrum = AberratedProbe(0.03, {"defocus": 40.0}, dose).spectrum(grid)
    waves = jnp.fft.fftshift(jnp.fft.ifft2(spectrum, norm="ortho"), axes=(1, 2))
    phase = jnp.asarray(random.normal(size=(1, n, n)) * 0.3)
    places = jnp.asarray(nodes + random.uniform(-0.1, 0.1, nodes.shape))
    specimen = SliceStack(phase, None, 5.0, jnp.zeros(2), periodic=True)
    return Model(PixelProbe(waves), specimen, FreeScan(PerShot(places)), grid)


def between(model: Model):
    """The phase between the two arms of the interferometer."""
    return model.specimen.phase[0, 0, 1] - model.specimen.phase[0, 0, 0]


def test_a_dose_is_known_as_well_as_its_quanta_count():
    """Var = dose/n from n patterns."""
    model = thin(probe=aberrated_probe(), specimen=MODELS["phase_only"]().specimen)
    for factor in (1, 4):
        found = bound(
            fisher(model, "probe.dose", dose=None if factor == 1 else factor * DOSE)
        ).deviation
        assert float(found.probe.dose) == pytest.approx(np.sqrt(DOSE / N_SHOTS / factor), rel=2e-3)
        assert found.probe.semiangle is None


@pytest.mark.parametrize("phase", [0.1, 0.7, 2.0])
def test_an_interferometer_is_limited_by_shot_noise(phase):
    """Var(φ₁ − φ₀) = 1/dose at any phase; half of it each when the sum, which nothing shows, is left out."""
    information = fisher(interferometer(phase), "specimen.phase")
    np.testing.assert_allclose(matrix(information), 50 * np.array([[1, -1], [-1, 1]]), rtol=1e-9)
    found = bound(information)
    assert found.gauges.shape == (1, 2)
    np.testing.assert_allclose(np.abs(found.gauges), np.sqrt(0.5), rtol=1e-9)
    np.testing.assert_allclose(found.deviation.specimen.phase, np.sqrt(1 / 200), rtol=1e-9)
    assert deviation_of(between, information) == pytest.approx(np.sqrt(1 / 50), rel=1e-9)


def test_what_no_pattern_shows_is_refused_or_known_beforehand():
    with pytest.raises(
        ValueError,
        match=r"not determined by the patterns; use a quantity that no gauge changes",
    ):
        deviation_of(
            lambda m: m.specimen.phase[0, 0, 0], fisher(interferometer(), "specimen.phase")
        )
    found = bound(fisher(interferometer(), "specimen.phase", prior={"specimen": 0.2}))
    expected = np.linalg.inv(50 * np.array([[1, -1], [-1, 1]]) + np.eye(2) / 0.2**2)
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-9)
    assert len(found.gauges) == 0


def test_a_pixel_that_no_shot_sees_is_not_determined():
    information = fisher(interferometer(pixels=3), "specimen.phase")
    for found in (bound(information), sampled_bound(information, 8)):
        np.testing.assert_array_equal(
            np.isinf(found.deviation.specimen.phase), [[[False, False, True]]]
        )


def explicit(model, names, views=1, step=1e-5):
    """JᵀJ/M by central differences, parameter by parameter in natural units, complex ones as pairs."""

    def parameters(tree):
        return [eval(f"tree.{name}", {"tree": tree}) for name in names]

    patterns = eqx.filter_jit(lambda model, view: predict(model, jnp.arange(N_SHOTS), view))
    start, units = parameters(model), parameters(natural_units(trainable(model)))
    changes = [
        (n, step * float(units[n]) * turn * np.reshape(np.eye(v.size)[i], v.shape))
        for n, v in enumerate(start)
        for turn in ((1, 1j) if jnp.iscomplexobj(v) else (1,))
        for i in range(v.size)
    ]

    def moved(n, change, view):
        values = [v + change if i == n else v for i, v in enumerate(start)]
        return np.ravel(patterns(eqx.tree_at(parameters, model, values), jnp.int32(view)))

    total = 0.0
    for view in range(views):
        expected = np.ravel(patterns(model, jnp.int32(view)))
        jacobian = np.stack(
            [(moved(n, c, view) - moved(n, -c, view)) / (2 * step) for n, c in changes], 1
        )
        seen = expected > 0
        total = total + jacobian[seen].T @ (jacobian[seen] / expected[seen, None])
    return total


def rich() -> Model:
    """One slice, and a number for every shot in probe and scan, on a camera with dead pixels."""
    return thin(probe=relaxed_probe(), scan=affine_scan(), detector=DETECTORS["masked"]())


@pytest.mark.parametrize(
    ("build", "names", "views"),
    [
        (rich, ("probe.coefficients.values", "scan.matrix", "scan.residual.values"), 1),
        (two_views, ("scan.positions.values.values", "propagator.angles.values"), 2),
    ],
)
def test_operator_is_the_matrix_written_out(build, names, views):
    model = build()
    information = fisher(model, *(name.replace(".values", "") for name in names), size=3)
    written, found = explicit(model, names, views), matrix(information)
    scale = np.sqrt(np.outer(np.diagonal(written), np.diagonal(written)))
    np.testing.assert_allclose(found / scale, written / scale, atol=1e-6)
    vector = rng(1).normal(size=len(found))
    product = eqx.filter_jit(information.product)(jnp.asarray(vector))
    np.testing.assert_allclose(
        product, found @ vector, rtol=1e-9, atol=1e-9 * np.abs(found @ vector).max()
    )


@pytest.fixture(scope="module")
def information():
    """Of phase, probe and positions together."""
    return fisher(small_scan(n=6, steps=3), "specimen", "probe", "scan")


def test_a_probed_diagonal_is_right_within_its_error(information):
    value, error = (as_vector(tree) for tree in diagonal(information, 96))
    exact = np.diagonal(matrix(information)) / np.asarray(information.units) ** 2
    pulls = (value - exact) / error
    assert 0.8 < np.std(pulls) < 1.2
    assert np.abs(pulls).max() < 5
    assert np.median(error / value) < 0.1


@pytest.mark.slow
def test_simulated_noise_spreads_as_the_exact_bound():
    """In single precision, too, four gauges: two phases and a common shift of probe and scan."""
    with jax.enable_x64(False):
        information = fisher(small_scan(n=6, steps=3), "specimen", "probe", "scan")
        exact, sampled = bound(information), sampled_bound(information, 96)
    assert information.units.dtype == jnp.float32
    assert len(exact.gauges) == 4
    assert jnp.iscomplexobj(exact.deviation.probe.waves)
    assert sampled.error == pytest.approx(192**-0.5)
    assert sampled.residual < 2e-4
    deviations = as_vector(sampled.deviation) / as_vector(exact.deviation) - 1
    assert np.std(deviations) == pytest.approx(sampled.error, rel=0.25)
    assert abs(np.mean(deviations)) < sampled.error


def test_a_bound_that_is_not_finished_says_so(information):
    """Deviations that conjugate gradients have not reached are too small, by far."""
    whole = as_vector(sampled_bound(information, 32).deviation)
    with pytest.warns(UserWarning, match="after 3 steps a part of .* the deviations are too small"):
        early = as_vector(sampled_bound(information, 32, steps=3).deviation)
    assert np.median(early / whole) < 0.9


def test_a_difference_of_phases_by_one_solution_is_that_of_the_whole_covariance(information):
    def difference(model):
        return model.specimen.phase[0, 1, 2] - model.specimen.phase[0, 5, 4]

    slope = as_vector(
        eqx.filter_grad(difference)(information.chosen)
    )  # phases count in rad, their natural unit
    assert np.count_nonzero(slope) == 2
    variance = slope @ bound(information).covariance @ slope
    assert deviation_of(difference, information) == pytest.approx(np.sqrt(variance), rel=1e-4)


def as_vector(tree):
    """The numbers of a tree as a vector, complex ones as pairs."""
    parts = [
        np.stack([v.real, v.imag]) if np.iscomplexobj(v) else v
        for v in map(np.asarray, jax.tree.leaves(tree))
    ]
    return np.concatenate([np.ravel(p) for p in parts]).astype(float)


def test_noisy_reconstructions_spread_as_the_bound_says():
    """256 sets of counts, each reconstructed from the truth until it stands still: probe, phase and positions."""
    model, shots, sets = small_scan(1e7, n=6, steps=3), jnp.arange(9), 256
    information = fisher(model, "specimen", "probe", "scan")
    least = bound(information)
    expected = np.asarray(predict(model, shots))
    counts = jnp.asarray(rng(1).poisson(expected, (sets, *expected.shape)), float)
    loss, covariance = misfit(poisson, micro=len(shots)), jnp.asarray(least.covariance)

    def estimate(counts):
        batch = Batch(jnp.int32(0), shots, counts, jnp.ones(len(shots)))
        slope = jax.grad(lambda vector: len(shots) * loss(information.moved(vector), batch))

        def step(vector, _):  # Fisher scoring; where it stands still the slope is zero
            change = covariance @ slope(vector)
            return vector - change, jnp.linalg.norm(change)

        return jax.lax.scan(step, jnp.zeros_like(information.units), length=10)

    found, changes = jax.jit(lambda every: jax.lax.map(estimate, every, batch_size=16))(counts)
    deviation = np.sqrt(np.diagonal(least.covariance))
    assert np.max(changes[:, -1]) < 0.01 * np.linalg.norm(deviation)
    found = found - (found @ least.gauges.T) @ least.gauges
    spread = np.std(found, axis=0, ddof=1)
    assert np.abs(spread / deviation - 1).max() < 0.2
    assert np.sqrt(np.mean((spread / deviation) ** 2)) == pytest.approx(1, abs=0.02)


def test_only_the_shots_asked_for_count():
    model, thirds = small_scan(n=6, steps=3), ([0, 1, 2], [3, 4, 5], [6, 7, 8])
    whole = matrix(fisher(model, "scan", size=3))
    parts = [matrix(fisher(model, "scan", shots=[shots])) for shots in thirds]
    np.testing.assert_allclose(sum(parts), whole, rtol=1e-9, atol=1e-12 * whole.max())
    assert all(np.count_nonzero(np.diagonal(part)) == 6 for part in parts)


def test_what_makes_no_sense_is_named():
    model = thin(specimen=stack(1))
    with pytest.raises(
        ValueError,
        match=r"no parameter 'probe.defocus' to take the information of; its parts are probe",
    ):
        fisher(model, "probe.defocus")
    with pytest.raises(ValueError, match=r"no parameter 'probe' to have a prior of"):
        fisher(model, "scan", prior={"probe": 1.0})
    with pytest.raises(
        ValueError, match=r"the prior is \{'scan': 0.0\}; give positive standard deviations"
    ):
        fisher(model, "scan", prior={"scan": 0.0})
    for shots in ([3, 4], [[]]):
        with pytest.raises(
            ValueError, match="give a list over views of lists of shots, with at least one shot"
        ):
            fisher(model, "scan", shots=shots)
    with pytest.raises(ValueError, match="1 probes have no spread; give at least 2"):
        diagonal(fisher(model, "scan"), 1)
