import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import (
    DOSE,
    GRID,
    N_SHOTS,
    RICH,
    any_batch,
    assert_gradient,
    stack,
    thin,
    value_and_gradient,
)

from jaxptycho import Batch, PerView, SliceStack, Volume, exit_wave, misfit, poisson, predict
from jaxptycho.model import require_inside
from jaxptycho.physics import waves

pytestmark = pytest.mark.usefixtures("quick_to_compile")

predicted = eqx.filter_jit(predict)
SHOTS = jnp.arange(N_SHOTS)


@pytest.mark.parametrize("name", RICH)
def test_gradient_of_every_parameter(name):
    model = RICH[name]()
    batch = any_batch(model)
    assert_gradient(lambda m: misfit(poisson, micro=3)(m, batch), model)


def test_pattern_of_a_thin_specimen_by_hand():
    """Window, sub-pixel shift, product, transform: in plain numpy."""
    model, shot = thin(), 2
    pixel, shape = np.array(GRID.pixel), np.array(GRID.shape)
    offset = (
        np.asarray(model.scan.positions.values[shot]) - np.asarray(model.specimen.origin)
    ) / pixel
    corner = np.round(offset).astype(int) - shape // 2
    ky, kx = (np.fft.fftfreq(n) for n in GRID.shape)
    dy, dx = offset - np.round(offset)
    ramp = np.exp(-2j * np.pi * (ky[:, None] * dy + kx[None, :] * dx))
    shifted = np.fft.ifft2(np.fft.fft2(np.asarray(model.probe.waves)) * ramp)
    y, x = corner
    seen = np.asarray(model.specimen.slices(GRID).transmission)[
        0, y : y + shape[0], x : x + shape[1]
    ]
    expected = np.sum(np.abs(np.fft.fft2(shifted * seen)) ** 2, axis=0) / np.prod(shape)
    np.testing.assert_allclose(
        predicted(model, jnp.array([shot]))[0], expected, rtol=1e-9, atol=1e-9
    )


def test_phase_specimen_keeps_every_quantum():
    model = thin(specimen=eqx.tree_at(lambda s: s.absorption, stack(3), None))
    np.testing.assert_allclose(predicted(model, SHOTS).sum((1, 2)), DOSE, rtol=1e-10)


def test_thickness_of_one_slice_does_not_matter():
    patterns = [predicted(thin(specimen=stack(1, jnp.array(d))), SHOTS) for d in (1.0, 500.0)]
    np.testing.assert_array_equal(*patterns)


def test_exit_wave_of_an_empty_specimen_is_the_probe():
    empty = SliceStack(jnp.zeros((1, 40, 40)), None, 1.0, (0.0, 0.0))
    model = thin(specimen=empty)
    centre = jnp.array([8 * 0.4, 6 * 0.5])
    sliced = empty.slices(GRID)
    wave = exit_wave(model, sliced, sliced.window(jnp.array([3, 3]), GRID), centre).wave
    np.testing.assert_allclose(wave, model.probe.waves, atol=1e-10)
    assert float(waves.intensity(wave).sum()) == pytest.approx(DOSE)


def test_predict_is_pure():
    """It may be compiled, mapped and linearised; order and repetition of shots do not matter."""
    model = thin()
    all_shots = predicted(model, SHOTS)
    np.testing.assert_allclose(predicted(model, SHOTS[::-1]), all_shots[::-1], rtol=1e-12)
    mapped = jax.jit(jax.vmap(lambda shot: predict(model, shot[None])[0]))(SHOTS)
    np.testing.assert_allclose(mapped, all_shots, rtol=1e-9, atol=1e-12)

    def of_phase(phase):
        return predict(eqx.tree_at(lambda m: m.specimen.phase, model, phase), SHOTS[:1])

    phase, change = model.specimen.phase, jnp.ones_like(model.specimen.phase).at[0, ::2].set(-1.0)
    forward = jax.jit(lambda change: jax.linearize(of_phase, phase)[1](change))
    step, of_phase = 1e-5, jax.jit(of_phase)
    measured = (of_phase(phase + step * change) - of_phase(phase - step * change)) / (2 * step)
    np.testing.assert_allclose(forward(change), measured, atol=1e-6)


@pytest.mark.parametrize("name", ["thick", pytest.param("two_views", marks=pytest.mark.slow)])
def test_micro_batches_are_the_plain_sum(name):
    """Value and gradient of the sum worked off in parts are those of `predict` differentiated."""
    model = RICH[name]()
    view = int(name == "two_views")
    batch = any_batch(model, view=view, weight=[1.0, 1.0, 0.5, 1.0, 2.0, 0.0, 0.0])

    def plain(model, batch):
        counts = batch.counts.astype(float)
        of_shots = jnp.sum(poisson(predict(model, batch.shots, batch.view), counts), axis=(1, 2))
        return jnp.sum(batch.weight * of_shots) / jnp.sum(batch.weight)

    derived, params = value_and_gradient(lambda m: plain(m, batch), model)
    value, gradient = derived(params)
    for micro in (1, 3, None):  # three do not divide seven
        derived, params = value_and_gradient(
            lambda m, micro=micro: misfit(poisson, micro)(m, batch), model
        )
        other_value, other = derived(params)
        assert float(other_value) == pytest.approx(float(value), rel=1e-10)
        for a, b in zip(jax.tree.leaves(other), jax.tree.leaves(gradient), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9 * float(jnp.abs(b).max()))


def test_single_precision_stays_single():
    exact = predicted(RICH["thick"](), SHOTS)
    with jax.enable_x64(False):
        model = RICH["thick"]()
        batch = any_batch(model)
        derived, params = value_and_gradient(lambda m: misfit(poisson, micro=3)(m, batch), model)
        assert {a.dtype.name for a in jax.tree.leaves(params)} <= {"float32", "complex64"}
        value, gradient = derived(params)
        patterns = predicted(model, jnp.arange(N_SHOTS))
    assert value.dtype == patterns.dtype == np.float32
    assert [g.dtype for g in jax.tree.leaves(gradient)] == [
        p.dtype for p in jax.tree.leaves(params)
    ]
    np.testing.assert_allclose(np.asarray(patterns), exact, rtol=1e-3, atol=1e-2)


def test_a_window_over_the_edge_of_the_specimen_is_named():
    model = thin()
    require_inside(model)
    far = jax.tree.map(lambda p: p.at[3, 1].add(1e3), model.scan.positions)
    with pytest.raises(
        ValueError, match=r"windows of 1 shots reach outside the object \(first: shot 3 at x"
    ):
        require_inside(eqx.tree_at(lambda m: m.scan.positions, model, far))


@pytest.mark.parametrize("view", [0, 1])
def test_a_batch_is_predicted_as_its_shots_are(view):
    tilted = Volume(jnp.ones((4, 32, 30)), (0.5, *GRID.pixel), PerView(jnp.array([-0.3, 0.3])))
    model, shots = thin(specimen=tilted), np.array([3, 0, 5])
    batch = Batch(view, shots, np.zeros((3, *GRID.shape)), np.ones(3, np.float32))
    alone = predicted(model, shots, view)
    np.testing.assert_allclose(predict(model, batch), alone, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(predicted(model, batch), alone, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="a batch carries its view"):
        predict(model, batch, view)
