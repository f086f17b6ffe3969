"""Small least-squares problems beside NumPy's solutions and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxptycho.inverse.least_squares import (
    adapt_damping,
    fit_linear,
    normal_equations,
    solve_damped,
)

SHAPE = (4, 5)


def problem(seed, dtype=float):
    """Columns, values and weights of three coefficients."""
    rng = np.random.default_rng(seed)
    columns = rng.normal(size=(3, *SHAPE)).astype(dtype)
    if dtype is complex:
        columns += 1j * rng.normal(size=columns.shape)
    values = np.tensordot([1.0, -2.0, 3e4], columns, 1) + rng.normal(size=SHAPE)
    return columns * np.array([1, 1e6, 1e-6])[:, None, None], values, rng.uniform(0.1, 1, SHAPE)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("dtype", [float, complex])
def test_fit_linear_is_weighted_least_squares(seed, dtype):
    columns, values, weight = problem(seed, dtype)
    rows = (np.sqrt(weight) * columns).reshape(3, -1).T
    right = (np.sqrt(weight) * values).ravel()
    if dtype is complex:
        rows = np.concatenate([rows.real, rows.imag])
        right = np.concatenate([right.real, right.imag])
    expected = np.linalg.lstsq(rows, right, rcond=None)[0]
    np.testing.assert_allclose(fit_linear(columns, values, weight), expected, rtol=1e-8)


@pytest.mark.parametrize("seed", [3, 4])
def test_arrays_of_jax_give_the_same_inside_jit_and_vmap(seed):
    columns, values, weight = problem(seed)
    found = jax.jit(jax.vmap(fit_linear))(
        *(jnp.asarray(a)[None] for a in (columns, values, weight))
    )
    assert isinstance(fit_linear(columns, values), np.ndarray)
    np.testing.assert_allclose(found[0], fit_linear(columns, values, weight), rtol=1e-10)


def test_solve_damped_shortens_each_parameter_in_its_own_unit():
    normal = np.diag([4.0, 1e12])
    found = solve_damped(normal, np.array([4.0, 1e12]), 0.25)
    np.testing.assert_allclose(found, [0.8, 0.8])


@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_a_parameter_without_effect_stays(damping):
    columns, values, weight = problem(5)
    columns[1] = 0
    some = fit_linear(columns[[0, 2]], values, weight, damping)
    found = fit_linear(columns, values, weight, damping)
    np.testing.assert_allclose(found, [some[0], 0, some[1]], rtol=1e-10)
    slope = jax.grad(lambda v: fit_linear(jnp.asarray(columns), v, damping=damping).sum())
    assert np.isfinite(slope(jnp.asarray(values))).all()


def test_levenberg_marquardt_meets_an_exponential():
    """Amplitude and rate of noise-free samples, from a poor start."""
    x = np.linspace(0, 3, 20)
    goal = 2.0 * np.exp(-1.5 * x)
    state = np.array([0.5, 0.1])
    damping = 1e-2
    for _ in range(40):
        shape = np.exp(-state[1] * x)
        residual = goal - state[0] * shape
        columns = np.stack([shape, -state[0] * x * shape])
        trial = state + solve_damped(*normal_equations(columns, residual), damping)
        missing = goal - trial[0] * np.exp(-trial[1] * x)
        better = np.sum(missing**2) < np.sum(residual**2)
        state = trial if better else state
        damping = float(adapt_damping(damping, better))
    np.testing.assert_allclose(state, [2.0, 1.5], rtol=1e-10)
