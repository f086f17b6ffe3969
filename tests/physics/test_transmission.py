import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxptycho.physics.transmission import transmission_function

WEAK = np.concatenate([np.linspace(-0.78, 0.78, 20001), 10.0 ** np.arange(-30, 0)])
SMALL = np.linspace(-8, 8, 20001)
LARGE = np.random.default_rng(0).uniform(-1e4, 1e4, 20000)
AXES = np.arange(-6366, 6367) * np.pi / 2  # where one part all but vanishes


def errors(phases, kind):
    """By the unit of the last digit of 1, and of the part itself, against NumPy in extended precision, which knows
    the very number that was given."""
    phases = phases.astype(kind)
    exact = phases.astype(np.longdouble)
    found = np.asarray(jax.jit(transmission_function)(phases, np.zeros_like(phases)))
    assert found.dtype == np.result_type(kind, np.complex64)
    for part, known in ((found.real, np.cos(exact)), (found.imag, np.sin(exact))):
        off = np.abs(part - known) / np.finfo(kind).eps
        yield np.max(off), np.max(off[known != 0] / np.abs(known[known != 0]))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize(
    "phases", [WEAK, SMALL, LARGE, AXES], ids=["weak", "small", "large", "axes"]
)
def test_cosine_and_sine_are_right_to_the_last_digit(kind, phases):
    for of_one, of_itself in errors(phases, kind):
        assert of_one < 1
        assert of_itself < 1 or phases is not WEAK  # elsewhere one part may all but vanish


def test_a_loss_attenuates():
    phase, loss = jnp.array([0.3, -40.0, 2000.0]), jnp.array([0.0, 1.5, -0.2])
    np.testing.assert_allclose(
        transmission_function(phase, loss), np.exp(1j * phase - loss), rtol=1e-15
    )


def test_what_is_no_number_stays_none():
    assert np.isnan(transmission_function(jnp.array([np.nan, np.inf, -np.inf]), jnp.zeros(3))).all()


@pytest.mark.usefixtures("quick_to_compile")
def test_derivatives_are_those_of_an_exponential():
    """Forward, reverse and second, against that of JAX."""

    def by(function):
        def of(pair):
            wave = function(*pair)
            return jnp.sum(jnp.abs(wave - (0.3 - 0.8j)) ** 4)

        return of

    ours, known = by(transmission_function), by(lambda phase, loss: jnp.exp(1j * phase - loss))
    point = jnp.array([[0.4, -3.0, 70.0], [0.1, 0.0, 2.0]])
    along = jnp.array([[1.0, -0.5, 0.2], [0.3, 0.7, -1.0]])
    np.testing.assert_allclose(jax.grad(ours)(point), jax.grad(known)(point), rtol=1e-12)
    forward = [jax.jvp(of, (point,), (along,))[1] for of in (ours, known)]
    assert float(forward[0]) == pytest.approx(float(forward[1]), rel=1e-12)
    np.testing.assert_allclose(
        jax.hessian(ours)(point), jax.hessian(known)(point), rtol=1e-11, atol=1e-11
    )
