"""Preconditioners: symmetric, never uphill, in the frame of the right view; shells that grow."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from models import GRID, any_batch, rng, stack, thin

from jaxptycho import PerView, Volume, amplitude, init_state, make_step, misfit, per_part
from jaxptycho.inverse.constraints import filters
from jaxptycho.inverse.solvers.preconditioning import measured, shell_growth
from jaxptycho.physics import volumes

pytestmark = pytest.mark.usefixtures("quick_to_compile")

VOXEL, SHAPE = (0.6, *GRID.pixel), (20, 32, 30)
TILTS = (0.0, 0.7)


def series(angles=None):
    tilts = PerView(jnp.array(TILTS))
    return thin(
        specimen=Volume(jnp.asarray(rng(1).normal(size=SHAPE)), VOXEL, tilts, 4, angles=angles)
    )


class View(eqx.Module):
    """All that a preconditioner asks of a batch."""

    view: int


def filtered(transform, model, values, view=0, state=None):
    """What becomes of `values`, as the gradient of the specimen."""
    grads = eqx.tree_at(
        lambda m: m.specimen.potential, eqx.filter(model, eqx.is_inexact_array), jnp.asarray(values)
    )
    state = transform.init(grads) if state is None else state
    updates, state = transform.update(grads, state, model=model, batch=View(view))
    return np.asarray(updates.specimen.potential), state


def test_it_is_symmetric_and_never_uphill():
    model, transform = series(PerView(jnp.array([[0.1, 0.2], [-0.1, 0.05]]))), measured(25.0)
    a, b = rng(2).normal(size=(2, *SHAPE))
    for view in (0, 1):
        pa, pb = (filtered(transform, model, v, view)[0] for v in (a, b))
        np.testing.assert_allclose(np.vdot(a, pb), np.vdot(pa, b), rtol=1e-9)
        assert 0 < np.vdot(a, pa) < np.vdot(a, a)


@pytest.mark.parametrize("view", [0, 1])
def test_what_the_view_measures_stays_and_what_it_cannot_goes(view):
    """Waves across the beam and along it: W = 1, and 1 − (2/π) arctan((k_z/αk_guard)²) at k_r = 0."""
    middle = np.array(SHAPE) // 2
    z, x = np.meshgrid(
        VOXEL[0] * (np.arange(20) - middle[0]),
        VOXEL[2] * (np.arange(30) - middle[2]),
        indexing="ij",
    )
    window = np.exp(-(z**2 + x**2) / (2 * 2.5**2))[:, None] * np.ones((32, 1))
    cos, sin = np.cos(TILTS[view]), np.sin(TILTS[view])
    across, along = x * cos + z * sin, z * cos - x * sin
    model, transform = series(), measured(5.0)
    seen, lost = (window * np.cos(2 * np.pi * 0.5 * r)[:, None] for r in (across, along))
    kept = [
        np.linalg.norm(filtered(transform, model, v, view)[0]) / np.linalg.norm(v)
        for v in (seen, lost)
    ]
    other = filtered(transform, model, seen, 1 - view)[0]
    assert kept[1] < 0.1 < 0.2 < kept[0]
    assert np.linalg.norm(other) < 0.5 * kept[0] * np.linalg.norm(seen)


def test_the_weight_turns_with_the_frequencies():
    """At half of its value, k_z′ = α k_r′, in the frame of the beam."""
    rotation = volumes.rotation_matrix((0.7, 0.1, -0.2))
    weight = np.asarray(filters.measurable_turned(SHAPE, VOXEL, rotation, 0.3))
    k = np.meshgrid(*map(np.fft.fftfreq, SHAPE, VOXEL), indexing="ij")
    kz, ky, kx = (
        np.asarray(part)[..., :16] for part in np.einsum("ab,bzyx->azyx", np.asarray(rotation), k)
    )
    kr = np.hypot(ky, kx)
    inside, outside = np.abs(kz) < 0.29 * kr, np.abs(kz) > 0.3 * np.hypot(kr, 0.1)
    off_nyquist = np.ones_like(inside)
    off_nyquist[..., 15] = False
    assert np.all(weight[inside & off_nyquist] > 0.5)
    assert np.all(weight[outside & off_nyquist] < 0.5)
    assert weight[0, 0, 0] == 1


def test_what_a_thin_specimen_leaves_undecided_is_measured():
    weight = np.asarray(filters.measurable_turned(SHAPE, VOXEL, jnp.eye(3), 0.02, slab=1 / 12))
    kz = np.abs(np.fft.fftfreq(20, 0.6))
    assert np.all(weight[kz < 1 / 12] == 1)
    assert np.all(weight[kz > 1 / 12, 3, 2] < 0.2)


def test_a_stack_is_filtered_as_its_constraint_does():
    model = thin(specimen=stack(4, jnp.array(8.0)))
    grads = eqx.filter(model, eqx.is_inexact_array)
    updates, _ = measured(20.0).update(grads, optax.EmptyState(), model=model, batch=View(0))
    kept = filters.measurable((4, 32, 30), GRID.pixel, 8.0, 0.02)
    np.testing.assert_allclose(
        updates.specimen.phase, filters.filter_volume(model.specimen.phase, kept), atol=1e-12
    )
    np.testing.assert_array_equal(updates.probe.waves, grads.probe.waves)


def test_shells_grow_with_the_steps():
    model, transform = series(), shell_growth(0.4, 0.8, steps=4)
    values, state, power = rng(3).normal(size=SHAPE), None, []
    for _ in range(6):
        found, state = filtered(transform, model, values, state=state)
        power.append(np.sum(found**2) / np.sum(values**2))
        again, _ = filtered(
            transform, model, found, state=transform.init(model)._replace(count=len(power) - 1)
        )
        np.testing.assert_allclose(again, found, atol=1e-12)
    assert power == sorted(power)
    assert power[4] == power[5]
    ball = 4 / 3 * np.pi * 0.4**3 * np.prod(VOXEL)
    np.testing.assert_allclose([power[0], power[4]], [ball, 8 * ball], rtol=0.2)


def test_steps_over_views_with_every_preconditioner():
    model = series()
    chain = optax.chain(measured(25.0), shell_growth(0.3, 0.9, 2, 0.1), optax.adam(1e-2))
    optimiser = per_part(specimen=chain)
    step, state = make_step(misfit(amplitude), optimiser), init_state(optimiser, model)
    moved = jax.tree.map(lambda a: a.copy() if eqx.is_array(a) else a, model)
    for view in (0, 1):
        moved, state, info = step(moved, state, any_batch(model, range(3), view))
        assert np.isfinite(info["loss"])
    assert not np.allclose(moved.specimen.potential, model.specimen.potential)
    np.testing.assert_array_equal(moved.probe.waves, model.probe.waves)


def test_shells_that_shrink_are_refused():
    with pytest.raises(ValueError, match="give 0 < first ≤ last"):
        shell_growth(0.5, 0.2, 10)
