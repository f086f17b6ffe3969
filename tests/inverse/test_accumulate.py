"""Batches worked off within a budget of memory: the same sums and gradients, in fewer bytes."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import GRID, N_SHOTS, any_batch, rng, stack, thin, tilts

from jaxptycho import BandLimited, Batch, PerShot, Tilted, distribute, mesh, misfit, poisson
from jaxptycho.inverse import memory
from jaxptycho.inverse.memory import fastest, needed, plans
from jaxptycho.physics.checkpointed import multislice_reversible, multislice_sqrt
from jaxptycho.physics.waves import multislice

pytestmark = pytest.mark.usefixtures("quick_to_compile")

MODES, SLICES = 4, 26


def thick():
    """Slices of different thickness, two modes, an own tilt for every shot."""
    return thin(specimen=stack(3, jnp.array([5.0, 12.0, 8.0])), propagator=Tilted(PerShot(tilts())))


def heavy():
    """Many slices, whose waves are most of what a gradient takes, and a batch."""
    model = thin(specimen=stack(SLICES))
    waves = jnp.asarray(rng(1).normal(size=(MODES, *model.grid.shape)) + 0j)
    return eqx.tree_at(lambda m: m.probe.waves, model, waves), any_batch(model)


def gradient(loss, model, batch):
    params, rest = eqx.partition(model, eqx.is_inexact_array)
    return jax.jit(jax.value_and_grad(lambda p: loss(eqx.combine(p, rest), batch)))(params)


@pytest.mark.parametrize(
    "way", [multislice_sqrt, pytest.param(multislice_reversible, marks=pytest.mark.slow)]
)
def test_every_way_has_the_same_gradient_on_two_devices(way):
    model = thick()
    batch = any_batch(model, range(6))
    found, expected = (
        gradient(distribute(misfit(poisson, 3, w), mesh(2)), model, batch)
        for w in (way, multislice)
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-10 * float(jnp.abs(b).max()))


@pytest.fixture
def large_cache(monkeypatch):
    """One that holds the waves of all shots."""
    monkeypatch.setitem(memory.CHUNK_BYTES, "cpu", (2**30, 2**30))


def test_a_cache_holds_fewer_shots_of_more_slices():
    wave = 2 * 16 * math.prod(GRID.shape)  # bytes of the modes of a shot
    least, most = memory.CHUNK_BYTES["cpu"]
    for slices in (1, 3, 40):
        shots = plans(thin(specimen=stack(slices)), 10**6)[0].micro
        assert shots == max(1, least // (slices * wave), min(4, most // (slices * wave)))


def test_plans_take_fewer_shots_first_and_keep_fewer_waves_last(large_cache):
    model, batch = heavy()
    choice = plans(model, N_SHOTS)
    assert choice == [(7, multislice), (3, multislice), (1, multislice), (1, multislice_sqrt)]
    assert plans(model, N_SHOTS, micro=2) == [(2, multislice), (2, multislice_sqrt)]
    assert plans(model, N_SHOTS, multislice=multislice_reversible) == [
        (n, multislice_reversible) for n in (7, 3, 1)
    ]
    sizes = [needed(misfit(poisson, *plan), model, batch) for plan in choice]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.4 * sizes[0]


def test_waves_that_lose_frequencies_are_not_traced_back():
    model = thin(specimen=stack(3), propagator=BandLimited(Tilted(PerShot(tilts()))))
    loss = misfit(poisson, multislice=multislice_reversible)
    with pytest.raises(
        ValueError,
        match=r"BandLimited loses frequencies .*\|P\| falls to 0\).* use checkpointed.multislice_sqrt",
    ):
        jax.eval_shape(lambda model: loss(model, any_batch(model)), model)


@pytest.fixture
def megabyte_a_shot(monkeypatch):
    """The compiler replaced: a plan takes 1 MB a shot, half of it with the root."""
    by = lambda plan: plan  # noqa: E731
    monkeypatch.setattr(
        memory,
        "needed",
        lambda plan, *_: plan.micro * (1e6 if plan.multislice is multislice else 5e5),
    )
    return lambda model, batch, budget: fastest(by, model, batch, plans(model, N_SHOTS), budget)


def test_the_fastest_plan_within_the_budget_is_taken(megabyte_a_shot, large_cache):
    model, batch = heavy()
    budgets = {1e12: 7, 3.5e6: 3, 1.5e6: 1}
    assert {b: megabyte_a_shot(model, batch, b).micro for b in budgets} == budgets
    assert megabyte_a_shot(model, batch, 7e5) == (1, multislice_sqrt)
    with pytest.raises(
        ValueError,
        match=r"takes 0.5 MB with 1 shots at a time and multislice_sqrt, the budget is 0.4 MB",
    ):
        megabyte_a_shot(model, batch, 4e5)


def test_short_memory_makes_the_plan_leaner_by_itself(megabyte_a_shot, large_cache, monkeypatch):
    model, batch = heavy()
    for whole, plan in {
        None: (7, multislice),
        4e6: (1, multislice),
        1e3: (1, multislice_sqrt),
    }.items():
        monkeypatch.setattr(
            memory, "device_memory", lambda whole=whole: whole
        )  # half of it is for waves
        assert megabyte_a_shot(model, batch, None) == plan


def test_a_budget_holds_on_every_device_and_changes_nothing_else():
    model, batch = heavy()
    batch = Batch(batch.view, batch.shots[:6], batch.counts[:6], batch.weight[:6])
    size = needed(misfit(poisson, 3), model, batch)
    asked = []

    def noise(predicted, counts):
        asked.append(predicted.shape)
        return poisson(predicted, counts)

    loss = distribute(misfit(noise, budget=0.9 * size), mesh(2))
    found, expected = (gradient(each, model, batch) for each in (loss, misfit(poisson)))
    assert len(asked) > 2  # more than one plan was tried
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-10 * float(jnp.abs(b).max()))


def test_a_device_has_memory(tmp_path, monkeypatch):
    assert memory.device_memory() > 2**20
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "CONTROL_GROUP", limit)
    limit.write_text(f"{2**20 * jax.local_device_count()}\n")
    assert memory.device_memory() == 2**20
