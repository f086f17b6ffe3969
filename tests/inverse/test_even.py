"""Adam with one second moment: for one number it is Adam, for an array it keeps the gradient's shape."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxptycho.inverse.solvers.layerwise_adam import layerwise_adam

NUMBER = jnp.array([2.0])


def steps(optimiser, gradients):
    state, found = optimiser.init(gradients[0]), []
    for gradient in gradients:
        step, state = optimiser.update(gradient, state)
        found.append(np.asarray(step))
    return found


def test_of_one_number_it_is_adam():
    gradients = [NUMBER, -3 * NUMBER, 0.1 * NUMBER]
    rate = optax.linear_schedule(0.1, 0.05, 3)
    np.testing.assert_allclose(
        steps(layerwise_adam(rate), gradients), steps(optax.adam(rate), gradients), rtol=1e-6
    )


@pytest.mark.parametrize("kind", [float, complex])
def test_steps_keep_the_shape_of_the_gradient_and_forget_its_size(kind):
    gradient = jnp.asarray(
        np.random.default_rng(0).normal(size=(2, 3, 4)).astype(kind)
        * (1 + 1j if kind is complex else 1)
    )
    (step,) = steps(layerwise_adam(0.1), [gradient])
    size = np.sqrt(np.mean(np.abs(gradient) ** 2))
    np.testing.assert_allclose(step, -0.1 * gradient / size, rtol=1e-6)
    np.testing.assert_allclose(steps(layerwise_adam(0.1), [1e3 * gradient])[0], step, rtol=1e-6)


def test_nothing_moves_without_a_gradient():
    assert not np.any(steps(layerwise_adam(0.1), [jnp.zeros((2, 2))])[0])
