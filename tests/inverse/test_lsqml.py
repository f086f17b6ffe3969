"""LSQ-ML: its joint step lengths against dense least squares, and what they gain."""

import equinox as eqx
import jax
import jax.numpy as jnp
import models
import numpy as np
import optax
import pytest

import jaxptycho as jp
from jaxptycho.inverse.losses import amplitude, misfit
from jaxptycho.inverse.solvers import lsqml
from jaxptycho.inverse.solvers.lsqml import DAMPING, joint_steps
from jaxptycho.inverse.solvers.moduli import moduli_residual
from jaxptycho.inverse.step import init_state, per_part
from jaxptycho.physics.waves import Exit

pytestmark = pytest.mark.usefixtures("quick_to_compile")
PARTS = ("specimen", "probe", "scan")
STEP = 1e-4


def moving(model):
    params = eqx.filter(model, eqx.is_inexact_array)
    fixed = ("propagator", "detector")
    masked = {
        part: jax.tree.map(lambda _: optax.MaskedNode(), getattr(params, part)) for part in fixed
    }
    return eqx.tree_at(lambda m: [getattr(m, p) for p in fixed], params, list(masked.values()))


def random_direction(params, seed):
    rng = models.rng(seed)

    def noise(leaf):
        values = rng.normal(size=leaf.shape)
        if jnp.iscomplexobj(leaf):
            values = values + 1j * rng.normal(size=leaf.shape)
        return jnp.asarray(values)

    return jax.tree.map(noise, params)


def test_joint_steps_solve_the_dense_least_squares_problem():
    """Three slices, two modes: tangents by central differences, residuals by the projection."""
    model = models.thin(specimen=models.transmission_stack(3))
    batch = models.batch_for(model, range(3), weight=[1.0, 1.0, 0.0])
    loss = misfit(amplitude)
    params = moving(model)
    direction = random_direction(params, 40)
    gradient = jax.jit(jax.grad(lambda p: loss(eqx.combine(p, model), batch)))
    grads = jax.tree.map(jnp.conj, gradient(params))
    found = jax.jit(lambda: joint_steps(grads, direction, model, batch, None))()
    shots = jnp.arange(2)
    waves = jax.jit(lambda m: jp.waves(m, shots))

    def tangent(part):
        def at(step):
            moved = jax.tree.map(
                lambda v, d: v + step * d, *[getattr(t, part) for t in (params, direction)]
            )
            full = eqx.combine(eqx.tree_at(lambda p: getattr(p, part), params, moved), model)
            return waves(full)

        return np.asarray((at(STEP) - at(-STEP)) / (2 * STEP)).ravel()

    residuals = [
        moduli_residual(
            model,
            wave,
            jnp.asarray(
                [n // 2 * p for n, p in zip(models.GRID.shape, models.GRID.pixel, strict=True)]
            ),
            counts,
        )
        for wave, counts in zip(waves(model), batch.counts, strict=False)
    ]
    columns = np.stack([tangent(part) for part in PARTS], 1)
    right = np.concatenate([np.asarray(r).ravel() for r in residuals])
    columns, right = (np.concatenate([x.real, x.imag]) for x in (columns, right))
    damped = np.concatenate([columns, np.sqrt(DAMPING) * np.diag(np.linalg.norm(columns, axis=0))])
    expected = np.linalg.lstsq(damped, np.concatenate([right, np.zeros(3)]))[0]
    np.testing.assert_allclose([found[part] for part in PARTS], expected, rtol=1e-6)


def test_the_residual_leads_to_the_measured_moduli():
    model = models.thin()
    counts = models.any_batch(model).counts[0] + 1.0
    wave = jp.waves(model, jnp.arange(1))[0]
    centre = jnp.zeros(2)
    projected = jp.Ideal().detect(
        Exit(
            wave + moduli_residual(model, wave, centre, counts),
            jnp.ones(models.GRID.shape, complex),
        ),
        models.GRID,
    )
    np.testing.assert_allclose(projected, counts, rtol=1e-4)


def test_a_detector_is_refused():
    model = models.thin(detector=models.DETECTORS["gain"]())
    with pytest.raises(ValueError, match="give the detector another optimiser"):
        init_state(per_part({("probe", "detector"): lsqml()}), model)
